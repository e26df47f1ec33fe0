"""The task of fine-tuning: name the class of an augmented, erased and mixed image.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import dataclasses

import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from milan_pipeline.core.keyed_random import seeded_globals
from milan_pipeline.evaluate.classification.views import LabelledBatch
from milan_pipeline.images.crops import Pixels
from milan_pipeline.models.kernels import suit_cpu
from milan_pipeline.training.optim import (
    FineTuningConfig,
    fine_tuning_optimiser,
    layer_decay_groups,
    learning_rate,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig(FineTuningConfig):
    """The recipe of fine-tuning to name classes.

    Attributes:
        smoothing: of the labels.
        mixup: alpha of mixup (arXiv 1710.09412); 0 is none.
        cutmix: alpha of CutMix (arXiv 1905.04899); 0 is none.
        erasing: share of the images in which a box is erased (arXiv 1708.04896).
    """

    smoothing: float
    mixup: float
    cutmix: float
    erasing: float


class Classification:
    """Fine-tuning as `trainer.Task`.

    Args:
        model: a timm ViT with a head, on its device; made to suit it, in place.
        config: the recipe.
        classes: Y, outputs of the head.
        rank: of this process, whose images are mixed by its own draws.
    """

    def __init__(
        self, model: nn.Module, config: ClassificationConfig, *, classes: int, rank: int = 0
    ) -> None:
        self.model = model
        self._config = config
        self._rank = rank
        self._kept: tuple[LabelledBatch, int, Tensor, Tensor] | None = None
        self._device = next(model.parameters()).device
        self._pixels = Pixels(config.mean, config.std, self._device)
        self._erase = RandomErasing(config.erasing, mode="pixel", device=self._device)
        self._mix = (
            Mixup(
                config.mixup, config.cutmix, label_smoothing=config.smoothing, num_classes=classes
            )
            if config.mixup or config.cutmix
            else None
        )
        smooth = LabelSmoothingCrossEntropy(config.smoothing)
        self._loss_of: nn.Module = SoftTargetCrossEntropy() if self._mix else smooth
        if config.gradient_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]  # a method of timm's models
        suit_cpu(model, bf16=config.bf16)

    def optimiser(self) -> torch.optim.Optimizer:
        """Return AdamW with layer-wise learning rates."""
        config = self._config
        groups = layer_decay_groups(
            self.model, layer_decay=config.layer_decay, weight_decay=config.weight_decay
        )
        return fine_tuning_optimiser(groups)

    def rate(self, epoch: float) -> float:
        """Return the learning rate of the last layer; see `optim.learning_rate`."""
        config = self._config
        return learning_rate(
            epoch,
            base=config.base_lr,
            batch=config.batch,
            warmup_epochs=config.warmup_epochs,
            epochs=config.epochs,
            least=config.min_lr,
        )

    def loss(self, replica: nn.Module, data: LabelledBatch, part: slice, step: int) -> Tensor:
        """Return the mean loss of a part of a batch; see `training.Task.loss`.

        What is erased and mixed is drawn by (seed, step, rank), for all images of the process's
        batch together: it does not depend on how the batch is divided into parts. What is dropped
        is drawn by the start of the part, too.
        """
        key = ("classification", self._config.seed, step, self._rank)
        images_BCHW, targets = self._changed(data, step, key)
        with (
            seeded_globals(*key, "dropped", part.start, device=self._device),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bf16),
        ):
            logits_BY = replica(images_BCHW[part])
        loss: Tensor = self._loss_of(logits_BY.float(), targets[part])
        return loss

    def _changed(
        self, data: LabelledBatch, step: int, key: tuple[str | int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return all images of a batch, erased and mixed, and their targets; kept for a step."""
        if self._kept is None or self._kept[0] is not data or self._kept[1] != step:
            labels_B = data.labels_B.to(self._device, non_blocking=True)
            with seeded_globals(*key, device=self._device):
                images_BCHW = self._erase(self._pixels(data.images_BCHW))
                self._kept = (data, step, *self._mixed(images_BCHW, labels_B))
        return self._kept[2:]

    def _mixed(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the images of a batch with each other, and their labels to (B, Y).

        timm mixes images in pairs. In a batch of odd length the last image is used twice, so that
        every image has a partner.
        """
        if self._mix is None:
            return images_BCHW, labels_B
        size = len(labels_B)
        if size % 2:
            images_BCHW = torch.cat([images_BCHW, images_BCHW[-1:]])
            labels_B = torch.cat([labels_B, labels_B[-1:]])
        images_BCHW, targets_BY = self._mix(images_BCHW, labels_B)
        return images_BCHW[:size], targets_BY[:size]
