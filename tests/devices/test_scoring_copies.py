"""Scoring on a GPU: images and masks go there without a wait, and one small tensor comes back."""

from typing import Any

import pytest
import timm
import torch

from milan_pipeline.evaluate.classification.scoring import Example, answers_of
from milan_pipeline.evaluate.segmentation.inference import Inference, InferenceConfig, ScoredImage
from milan_pipeline.evaluate.segmentation.model import HeadSpec, make_segmenter
from milan_pipeline.evaluate.segmentation.scoring import (
    SegmentationEvaluationConfig,
    SegmentationEvaluator,
    counts_of,
)
from milan_pipeline.evaluate.segmentation.views import ScaleRule
from milan_pipeline.images.crops import Pixels
from tests.support.fake_gpu import GPU, Copy, fake_gpu
from tests.support.segment import VIT

MEAN, STD = (0.5,) * 3, (0.2,) * 3
SIDE, CLASSES = 32, 20  # more classes than are enlarged at once


def test_a_batch_of_a_classifier_is_one_copy_there_and_its_answers_back() -> None:
    model = timm.create_model("test_vit", num_classes=CLASSES, img_size=SIDE).eval()
    some = [Example(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), 1, 0)] * 4
    with fake_gpu() as copies, torch.no_grad():
        model.to(GPU)
        pixels = Pixels(MEAN, STD, GPU)
        copies.made.clear()
        answers = answers_of(some, model, pixels, bf16=True)
        assert (answers.shape, answers.device.type) == ((4, 5), "cpu")
        assert copies.made == [
            Copy("cuda", 4 * 3 * SIDE * SIDE, waits=False),
            Copy("cpu", 4 * 5 * 8, waits=True),
        ]


def scored_images() -> list[ScoredImage]:
    view = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    return [ScoredImage([view, view], torch.zeros(40, 52, dtype=torch.uint8), 0)] * 2


def config(**changes: Any) -> InferenceConfig:
    usual: dict[str, Any] = {
        "scale": ScaleRule(short_side=SIDE, long_side=0),
        "factors": (1.0,),
        "flip": False,
        "window": None,
        "stride": 16,
        "multiple": 8,
        "batch": 2,
    }
    return InferenceConfig(**usual | changes)


def inference(**changes: Any) -> Inference:
    def logits_of(images_BChw: torch.Tensor) -> torch.Tensor:
        return images_BChw.new_zeros(len(images_BChw), CLASSES, *images_BChw.shape[-2:])

    return Inference(logits_of, Pixels(MEAN, STD, GPU), config(**changes))


def require_copies(scales: int, **changes: Any) -> None:
    """Images of each scale and the masks go to the GPU, the counts of classes come back."""
    some = [image._replace(scaled_Chw=image.scaled_Chw[:scales]) for image in scored_images()]
    with fake_gpu() as copies:
        ours = inference(factors=(1.0,) * scales, **changes)
        copies.made.clear()
        counts = counts_of(some, ours, CLASSES)
        assert (counts.shape, counts.device.type) == ((2, 3, CLASSES), "cpu")
        image = Copy("cuda", 2 * 3 * SIDE * SIDE, waits=False)
        masks = Copy("cuda", 2 * 40 * 52, waits=False)
        back = Copy("cpu", 2 * 3 * CLASSES * 8, waits=True)
        times = 1 if scales == 1 else len(some)  # several scales are added up image by image
        alone = image._replace(bytes=image.bytes // times)
        assert copies.made == [alone] * scales * times + [masks, back]


def test_images_seen_whole_are_scored_without_another_copy() -> None:
    require_copies(1)


def test_images_seen_by_windows_are_scored_without_another_copy() -> None:
    require_copies(1, window=16)


def test_images_at_two_scales_and_mirrored_are_scored_without_another_copy() -> None:
    require_copies(2, flip=True)


@pytest.mark.parametrize("head", ["linear", "upernet"])
def test_a_segmenter_of_another_image_size_is_scored_without_another_copy(head: str) -> None:
    model = make_segmenter(VIT, HeadSpec(head=head, channels=8, classes=CLASSES)).eval()
    some = [each._replace(scaled_Chw=each.scaled_Chw[:1]) for each in scored_images()]
    absent: Any = None
    how = SegmentationEvaluationConfig(
        inference=config(), mean=MEAN, std=STD, classes=CLASSES, threads=0, bf16=True
    )
    with fake_gpu() as copies:
        evaluator = SegmentationEvaluator(model.to(GPU), absent, absent, absent, how)
        averages = {name: value.detach() for name, value in model.named_parameters()}
        copies.made.clear()
        for weights in ({}, averages):
            counts_of(some, evaluator._inference(weights), CLASSES)
        assert [(copy.to, copy.waits) for copy in copies.made] == [
            ("cuda", False), ("cuda", False), ("cpu", True)
        ] * 2  # fmt: skip
