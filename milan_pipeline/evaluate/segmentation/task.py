"""The task of segmentation: name the class of each pixel.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from milan_pipeline.core.keyed_random import seeded_globals
from milan_pipeline.evaluate.segmentation.masks import IGNORED
from milan_pipeline.evaluate.segmentation.model import Segmenter
from milan_pipeline.evaluate.segmentation.views import MaskedBatch
from milan_pipeline.images.crops import Pixels
from milan_pipeline.models.kernels import suit_cpu
from milan_pipeline.training.optim import (
    FineTuningConfig,
    fine_tuning_optimiser,
    layer_decay_groups,
    scheduled_rate,
)

PUBLISHED_BATCH = 16
AUXILIARY_WEIGHT = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FineTuningConfig):
    """The recipe of segmentation; `schedule` is "poly" (a straight line down) or "cosine"."""

    schedule: str


class Segmentation:
    """Segmentation as `trainer.Task`.

    Args:
        model: on its device; made to suit it, in place.
        config: the recipe.
        rank: of this process, which drops by its own draws.
    """

    def __init__(self, model: Segmenter, config: SegmentationConfig, *, rank: int = 0) -> None:
        self.model: nn.Module = model
        self._encoder = model.encoder
        self._config = config
        self._rank = rank
        self._device = next(model.parameters()).device
        self._pixels = Pixels(config.mean, config.std, self._device)
        if config.gradient_checkpointing:
            model.encoder.set_grad_checkpointing()
        suit_cpu(model, bf16=config.bf16)

    def optimiser(self) -> torch.optim.Optimizer:
        """Return AdamW with layer-wise learning rates; the head's are not scaled."""
        config = self._config
        groups = layer_decay_groups(
            self.model,
            layer_decay=config.layer_decay,
            weight_decay=config.weight_decay,
            encoder=self._encoder,
        )
        return fine_tuning_optimiser(groups)

    def rate(self, epoch: float) -> float:
        """Return the head's learning rate; see `optim.scheduled_rate`."""
        config = self._config
        return scheduled_rate(
            epoch,
            shape=config.schedule,
            peak=config.base_lr * config.batch / PUBLISHED_BATCH,
            warmup_epochs=config.warmup_epochs,
            epochs=config.epochs,
            least=config.min_lr,
        )

    def loss(self, replica: nn.Module, data: MaskedBatch, part: slice, step: int) -> Tensor:
        """Return the mean loss of a part of a batch; see `training.Task.loss`.

        What is dropped is drawn by (seed, step, start of the part, rank).
        """
        parts = ("segmentation", self._config.seed, step, part.start, self._rank)
        images_BCHW = self._pixels(data.images_BCSS[part])
        labels_BHW = data.labels_BSS[part].to(self._device, non_blocking=True).long()
        with (
            seeded_globals(*parts, device=self._device),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bf16),
        ):
            logits = replica(images_BCHW)
        loss = pixel_loss(logits.main_BYHW, labels_BHW)
        if logits.auxiliary_BYHW is not None:
            loss = loss + AUXILIARY_WEIGHT * pixel_loss(logits.auxiliary_BYHW, labels_BHW)
        return loss


def pixel_loss(logits_BYHW: Tensor, labels_BHW: Tensor) -> Tensor:
    """Return the cross entropy of the labelled pixels, summed and divided by the number of all.

    So does mmsegmentation. The loss of a batch is then the mean of its parts' losses, however it is
    divided, and a part without any label is no division by zero.
    """
    total = F.cross_entropy(logits_BYHW, labels_BHW, ignore_index=IGNORED, reduction="sum")
    return total / labels_BHW.numel()
