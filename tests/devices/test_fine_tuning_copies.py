"""Steps of fine-tuning and segmentation: with a batch that is on the GPU, nothing is read back."""

import pytest
import timm
import torch

from milan_pipeline.evaluate.classification.task import Classification, ClassificationConfig
from milan_pipeline.evaluate.classification.views import LabelledBatch
from milan_pipeline.evaluate.segmentation.model import HeadSpec, make_segmenter
from milan_pipeline.evaluate.segmentation.task import Segmentation, SegmentationConfig
from milan_pipeline.evaluate.segmentation.views import MaskedBatch
from tests.support.fake_gpu import GPU, fake_gpu
from tests.support.segment import VIT

RECIPE = ClassificationConfig(
    batch=4,
    epochs=1,
    warmup_epochs=0,
    base_lr=1e-3,
    min_lr=0,
    layer_decay=0.65,
    weight_decay=0.05,
    smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    erasing=0.25,
    bf16=True,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    seed=0,
)


def test_a_loss_of_fine_tuning_copies_nothing() -> None:
    model = timm.create_model("test_vit", num_classes=3, img_size=32)
    with fake_gpu() as copies:
        task = Classification(model.to(GPU), RECIPE, classes=3)
        data = LabelledBatch(
            images_BCHW=torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device=GPU),
            labels_B=torch.zeros(4, dtype=torch.int64, device=GPU),
            keys=list("abcd"),
        )
        copies.made.clear()
        for step in range(1, 9):  # mixup and CutMix come by chance
            loss = task.loss(task.model, data, slice(0, 4), step)
        assert (loss.device, copies.made) == (GPU, [])


SEGMENTATION = SegmentationConfig(
    batch=2,
    epochs=1,
    warmup_epochs=0,
    schedule="poly",
    base_lr=1e-3,
    min_lr=0,
    layer_decay=0.65,
    weight_decay=0.05,
    bf16=True,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    seed=0,
)


@pytest.mark.parametrize("head", ["linear", "upernet"])
def test_a_loss_of_segmentation_copies_nothing(head: str) -> None:
    model = make_segmenter(VIT, HeadSpec(head=head, channels=8, classes=3), drop_path=0.1)
    with fake_gpu() as copies:
        task = Segmentation(model.to(GPU), SEGMENTATION)
        data = MaskedBatch(
            torch.zeros(2, 3, 16, 16, dtype=torch.uint8, device=GPU),
            torch.zeros(2, 16, 16, dtype=torch.uint8, device=GPU),
            ["a", "b"],
        )
        copies.made.clear()
        loss = task.loss(task.model, data, slice(0, 2), 1)
        assert (loss.device, copies.made) == (GPU, [])
