"""Layer-wise rates as weights show them: a step of AdamW moves a weight by at most its rate.

It moves those by just that whose gradient is not tiny (moments are corrected for their start), so
the farthest that a weight of a layer has moved is that layer's rate. What `lr_scale` says is not
asked here.
"""

from typing import Any

import pytest
import timm
import torch

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import StepClock
from milan_pipeline.evaluate.classification.task import Classification, ClassificationConfig
from milan_pipeline.evaluate.classification.views import LabelledBatch
from milan_pipeline.evaluate.segmentation.model import HeadSpec, make_segmenter
from milan_pipeline.evaluate.segmentation.task import (
    PUBLISHED_BATCH,
    Segmentation,
    SegmentationConfig,
)
from milan_pipeline.evaluate.segmentation.views import MaskedBatch
from milan_pipeline.training.trainer import Trainer, TrainingConfig

PEAK, DECAY, DEPTH, BATCH = 1e-3, 0.5, 3, 4
VIT: dict[str, Any] = {
    "model_name": "vit_tiny_patch16_224", "depth": DEPTH, "embed_dim": 16, "num_heads": 2,
    "img_size": 16, "patch_size": 8, "num_classes": 0, "global_pool": "token",
}  # fmt: skip
COMMON: dict[str, Any] = {
    "batch": BATCH, "warmup_epochs": 0, "min_lr": 0.0, "layer_decay": DECAY, "weight_decay": 0.0,
    "bf16": False, "mean": (0.5,) * 3, "std": (0.25,) * 3, "seed": 0,
}  # fmt: skip


def classification():
    model = timm.create_model(**(VIT | {"num_classes": 5, "global_pool": "avg"}))
    more: dict[str, Any] = {"smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "erasing": 0.0}
    config = ClassificationConfig(**COMMON, **more, epochs=2, base_lr=PEAK * 256 / BATCH)
    return Classification(model, config, classes=5), ""


def segmentation():
    model = make_segmenter(VIT, HeadSpec(head="linear", channels=8, classes=5))
    base = PEAK * PUBLISHED_BATCH / BATCH
    config = SegmentationConfig(**COMMON, epochs=2, schedule="poly", base_lr=base)
    return Segmentation(model, config), "encoder."


def batch(kind):
    images = torch.randint(0, 256, (BATCH, 3, 16, 16), dtype=torch.uint8)
    keys = list("abcd")
    if kind is classification:
        return LabelledBatch(images, torch.arange(BATCH), keys)
    return MaskedBatch(images, torch.randint(0, 5, (BATCH, 16, 16), dtype=torch.uint8), keys)


@pytest.mark.parametrize("kind", [classification, segmentation])
def test_a_step_of_the_trainer_moves_each_layer_by_its_own_rate(kind, tmp_path):
    torch.manual_seed(0)
    task, encoder = kind()
    before = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    config = TrainingConfig(
        batch=BATCH, micro_batch=BATCH, total_steps=1, checkpoint_every=1, keep=1, log_every=1
    )
    data = batch(kind)
    trainer = Trainer(tmp_path, task, config, StepClock((1,)))
    trainer.train(lambda steps: (data for _ in steps), StopRequest())

    def farthest(start):
        return max(
            float((value.detach() - before[name]).abs().max())
            for name, value in task.model.named_parameters()
            if name.startswith(start)
        )

    assert farthest("head.") == pytest.approx(PEAK, rel=0.01)
    for block in range(DEPTH):
        expected = PEAK * DECAY ** (DEPTH - block)
        assert farthest(f"{encoder}blocks.{block}.") == pytest.approx(expected, rel=0.01)
    for name in ("patch_embed.", "pos_embed"):
        expected = PEAK * DECAY ** (DEPTH + 1)
        assert farthest(encoder + name) == pytest.approx(expected, rel=0.01)
