"""The task of pretraining: predict stored targets of one or more teachers from the kept patches.

Legend: B batch, K kept and M masked patches, T supervised tokens, P pixels of a patch, C code
width, D target width of one teacher, S of all together.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.images.crops import Pixels
from milan_pipeline.models.kernels import suit_cpu
from milan_pipeline.models.student import Student, in_student_order, supervised_slice
from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.pretraining.losses import make_loss
from milan_pipeline.pretraining.resampling import Grid, resampled_tokens
from milan_pipeline.training.meter import PartedLoss
from milan_pipeline.training.optim import learning_rate, make_optimiser


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """MILAN's recipe, and how it is computed.

    Attributes:
        batch: pairs in a global batch, which the learning rate is scaled to.
        epochs: length of the schedule.
        warmup_epochs: of the learning rate.
        base_lr: for a batch of 256.
        weight_decay: AdamW's.
        bf16: compute under bfloat16 autocast.
        residual_dtype: of the tokens between blocks: "fp32", or "bf16" where `bf16` is set.
        mean: of the student's pixels, in [0, 1].
        std: of the student's pixels, in [0, 1].
        loss: see `losses.make_loss`.
        target_norm: see `losses.make_loss`.
        target_weights: of the loss of each teacher by name; those not there weigh 1.
        gradient_checkpointing: compute blocks again in the backward pass, to save memory.
    """

    batch: int
    epochs: int
    warmup_epochs: float
    base_lr: float
    weight_decay: float
    bf16: bool
    residual_dtype: str = "fp32"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    loss: str = "cosine"
    target_norm: str = "l2"
    target_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    gradient_checkpointing: bool = False


class Targets(Protocol):
    """Decodes stored targets: a codec, or `pixel_data.PixelTargets`."""

    @property
    def in_grid_order(self) -> bool:
        """Whether all tokens of a sample are decoded together, in the order of the grid."""
        ...

    def decode(self, codes_BTC: torch.Tensor, scale_BT: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, T, D)."""


class Pretraining:
    """MILAN's pretraining as `trainer.Task`.

    Args:
        student: on its device; made to suit it, in place.
        targets: decodes those of each teacher, by name, in the order of the student's heads.
        config: the recipe.
        other_grids: grids that are not the student's, by name of the teacher: its targets are
            resampled.
    """

    def __init__(
        self,
        student: Student,
        targets: Mapping[str, Targets],
        config: PretrainingConfig,
        other_grids: Mapping[str, Grid] | None = None,
    ) -> None:
        self.model: nn.Module = student
        self._student = student
        self._other_grids = other_grids or {}
        self._config = config
        self._device = next(student.parameters()).device
        self._targets = targets
        self._pixels = Pixels(config.mean, config.std, self._device, scaling="float32 statistics")
        self._loss_of = make_loss(config.loss, config.target_norm)
        student.checkpoint_blocks = config.gradient_checkpointing
        if config.residual_dtype == "bf16":
            student.narrow_residual()
        suit_cpu(student, bf16=config.bf16)

    def optimiser(self) -> torch.optim.Optimizer:
        """Return MILAN's; see `optim.make_optimiser`."""
        return make_optimiser(self.model, weight_decay=self._config.weight_decay)

    def rate(self, epoch: float) -> float:
        """Return MILAN's learning rate; see `optim.learning_rate`."""
        config = self._config
        return learning_rate(
            epoch,
            base=config.base_lr,
            batch=config.batch,
            warmup_epochs=config.warmup_epochs,
            epochs=config.epochs,
        )

    def loss(
        self, replica: nn.Module, data: Batch, part: slice, step: int
    ) -> torch.Tensor | PartedLoss:
        """Return the mean loss of a part of a batch; see `training.Task.loss`.

        That of several teachers is the mean of theirs, by their weights. One matrix product makes
        the predictions of all heads, which lie side by side.
        """
        del step  # nothing is drawn here, since masks come with the batch
        patches_BKP = self._pixels.patches(data.patches_BKP[part])
        kept_BK, masked_BM, *stored = (
            each[part].to(self._device, non_blocking=True)
            for each in (data.kept_BK, data.masked_BM, *data.codes, *data.scales)
        )
        teachers = len(data.codes)
        codes, scales = stored[:teachers], stored[teachers:]
        decoded = [
            self._supervised(name, targets.decode(codes_BTC, scale_BT), kept_BK, masked_BM)
            for (name, targets), codes_BTC, scale_BT in zip(
                self._targets.items(), codes, scales, strict=True
            )
        ]
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bf16):
            pred_BTS = replica(patches_BKP, kept_BK, masked_BM)
        if teachers == 1:
            return self._loss_of(pred_BTS, decoded[0])
        heads = pred_BTS.split([targets_BTD.shape[-1] for targets_BTD in decoded], dim=-1)
        losses = [self._loss_of(*each) for each in zip(heads, decoded, strict=True)]
        return self._together(dict(zip(self._targets, losses, strict=True)))

    def _supervised(
        self,
        name: str,
        tokens_BND: torch.Tensor,
        kept_BK: torch.Tensor,
        masked_BM: torch.Tensor,
    ) -> torch.Tensor:
        """Return the supervised targets (B, T, D) of a teacher, resampled if need be.

        Those of a codec of single tokens are the supervised ones already, in student order.
        """
        if name in self._other_grids:
            own = self._student.encoder.patch_embed.grid_size
            tokens_BND = resampled_tokens(tokens_BND, self._other_grids[name], own)
        elif not self._targets[name].in_grid_order:
            return tokens_BND
        kept, patches = kept_BK.shape[1], tokens_BND.shape[1] - 1
        wanted = supervised_slice(self._student.supervise, kept=kept, patches=patches)
        return in_student_order(tokens_BND, kept_BK, masked_BM)[:, wanted]

    def _together(self, losses: Mapping[str, torch.Tensor]) -> PartedLoss:
        """Return the mean of the teachers' losses by their weights, and each of them."""
        weights = {name: self._config.target_weights.get(name, 1.0) for name in losses}
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        parts = {name: loss.detach() for name, loss in losses.items()}
        return PartedLoss(total / sum(weights.values()), parts)
