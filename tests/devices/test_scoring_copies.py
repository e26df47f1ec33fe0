"""Scoring on a GPU: images and masks go there without a wait, and one small tensor comes back."""

import timm
import torch

from milan_pipeline.evaluate.classification.scoring import counts_of
from milan_pipeline.evaluate.segmentation.inference import Inference, InferenceConfig, ScoredImage
from milan_pipeline.evaluate.segmentation.scoring import confusion_of
from milan_pipeline.evaluate.segmentation.views import ScaleRule
from milan_pipeline.images.crops import Pixels
from tests.support.fake_gpu import GPU, Copy, fake_gpu

MEAN, STD = (0.5,) * 3, (0.2,) * 3
SIDE, CLASSES = 32, 20  # more classes than are enlarged at once


def test_a_batch_of_a_classifier_is_one_copy_there_and_its_answers_back() -> None:
    model = timm.create_model("test_vit", num_classes=CLASSES, img_size=SIDE).eval()
    some = [(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), 1)] * 4
    with fake_gpu() as copies, torch.no_grad():
        model.to(GPU)
        pixels = Pixels(MEAN, STD, GPU)
        copies.made.clear()
        counts = counts_of(some, model, pixels, bf16=True)
        assert (counts.shape, counts.device.type) == ((3,), "cpu")
        assert copies.made == [
            Copy("cuda", 4 * 3 * SIDE * SIDE, waits=False),
            Copy("cpu", 4 * 5 * 8, waits=True),
        ]


def scored_images() -> list[ScoredImage]:
    view = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    return [ScoredImage([view, view], torch.zeros(40, 52, dtype=torch.uint8))] * 2


def inference(**changes: object) -> Inference:
    config = InferenceConfig(
        **{
            "scale": ScaleRule(short_side=SIDE, long_side=0),
            "factors": (1.0, 1.0),
            "flip": False,
            "window": None,
            "stride": 16,
            "multiple": 8,
            "batch": 2,
        }
        | changes  # type: ignore[arg-type]
    )

    def logits_of(images_BChw: torch.Tensor) -> torch.Tensor:
        return images_BChw.new_zeros(len(images_BChw), CLASSES, *images_BChw.shape[-2:])

    return Inference(logits_of, Pixels(MEAN, STD, GPU), config)


def require_copies(scales: int, **changes: object) -> None:
    """Images of each scale and the masks go to the GPU, the confusion of classes comes back."""
    some = [image._replace(scaled_Chw=image.scaled_Chw[:scales]) for image in scored_images()]
    with fake_gpu() as copies:
        ours = inference(factors=(1.0,) * scales, **changes)
        copies.made.clear()
        confusion = confusion_of(some, ours, CLASSES)
        assert (confusion.shape, confusion.device.type) == ((CLASSES, CLASSES), "cpu")
        image = Copy("cuda", 2 * 3 * SIDE * SIDE, waits=False)
        masks = Copy("cuda", 2 * 40 * 52, waits=False)
        back = Copy("cpu", CLASSES * CLASSES * 8, waits=True)
        times = 1 if scales == 1 else len(some)  # several scales are added up image by image
        alone = image._replace(bytes=image.bytes // times)
        assert copies.made == [alone] * scales * times + [masks, back]


def test_images_seen_whole_are_scored_without_another_copy() -> None:
    require_copies(1)


def test_images_seen_by_windows_are_scored_without_another_copy() -> None:
    require_copies(1, window=16)


def test_images_at_two_scales_and_mirrored_are_scored_without_another_copy() -> None:
    require_copies(2, flip=True)
