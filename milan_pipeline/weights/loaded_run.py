"""Load a run's student with its decoder, to see what it predicts.

Legend: K kept, M masked patches, N = 1 + L tokens, T supervised tokens, D target width.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models import VisionTransformer

from milan_pipeline.errors import MismatchError, MissingDataError
from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.images.crops import Pixels
from milan_pipeline.models.build import StudentSpec, build_student
from milan_pipeline.models.student import Student, in_grid_order, patchify, supervised_slice
from milan_pipeline.pretraining.masking import kept_count
from milan_pipeline.pretraining.phi_s import PhiS
from milan_pipeline.pretraining.phi_s_file import kept_phi_s
from milan_pipeline.provenance.identity import identities_of
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME
from milan_pipeline.training.checkpoint_io import read_tensors
from milan_pipeline.training.checkpoints import (
    AVERAGE,
    MODEL,
    last_checkpoint,
    newest_checkpoint,
    verify_checkpoint,
)
from milan_pipeline.weights.run_weights import ENCODER_PART


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """A run's student, and what its input must be.

    Attributes:
        student: in evaluation mode, on the CPU.
        grid: rows and columns of patches.
        patch_size: in pixels.
        kept: K, the number of visible patches in training.
        mean: of each channel of its pixels, in [0, 1].
        std: standard deviation of each channel of its pixels, in [0, 1].
        phi_s: what standardised the targets of each teacher, in the order of the heads; empty if
            nothing did.
    """

    student: Student
    grid: tuple[int, int]
    patch_size: int
    kept: int
    mean: list[float]
    std: list[float]
    phi_s: list[PhiS] = dataclasses.field(default_factory=list)

    @property
    def image_size(self) -> int:
        """Height and width of a view, in pixels."""
        return self.grid[0] * self.patch_size

    @torch.no_grad()
    def predict(
        self, view_CHW: torch.Tensor, kept_K: torch.Tensor, masked_M: torch.Tensor
    ) -> torch.Tensor:
        """Predict the targets of one uint8 view from its kept patches.

        Returns:
            float32 (N, D) in grid order, CLS first; NaN for tokens that the run did not supervise.
            Those of several teachers lie side by side.
        """
        pixels = Pixels(self.mean, self.std, scaling="pixels")
        patches_LP = patchify(pixels(view_CHW), self.patch_size)
        kept_1K, masked_1M = kept_K[None], masked_M[None]
        pred_1TD: torch.Tensor = self.student(patches_LP[kept_1K], kept_1K, masked_1M)
        tokens, width = 1 + len(patches_LP), pred_1TD.shape[-1]
        wanted = supervised_slice(self.student.supervise, kept=len(kept_K), patches=tokens - 1)
        if self.phi_s:
            heads = torch.split(pred_1TD, [len(each.mean_D) for each in self.phi_s], dim=-1)
            undone = [each.undo(head) for each, head in zip(self.phi_s, heads, strict=True)]
            pred_1TD = torch.cat(undone, dim=-1)
        pred_1ND = torch.full((1, tokens, width), torch.nan)
        pred_1ND[:, wanted] = pred_1TD
        return in_grid_order(pred_1ND, kept_1K, masked_1M)[0]


def load_run(run: str | os.PathLike[str]) -> LoadedRun:
    """Load the newest checkpoint of a run of `pretrain`, whether it has ended or not.

    Raises:
        MissingDataError: the folder holds no such run.
        MismatchError: it is a run of another stage, which has no decoder.
    """
    run = Path(run)
    record, newest = read_record(str(run / CONFIG_NAME)), newest_checkpoint(run)
    if record is None or newest is None:
        raise MissingDataError(f"{run} holds no run with a checkpoint; `pretrain` makes one")
    if "student" not in record["content"]:
        raise MismatchError(
            f"{run} is a run of {record['stage']}, which predicts no targets; give the run of "
            "pretrain that it began with"
        )
    content, identities = record["content"], identities_of(record["inputs"])
    weights = read_tensors(newest[1] / MODEL)
    grids = [tuple(identity["teacher"]["grid"]) for identity in identities.values()]
    spec = StudentSpec.from_content(content)
    image_size, patch_size = spec.sizes(grids[0] if grids else None)
    grid = (image_size // patch_size,) * 2
    width = len(weights["decoder.pred.weight"])
    student, _ = build_student(spec, grid=grid, target_width=width, seed=0)
    student.load_state_dict(weights, strict=True)
    return LoadedRun(
        student=student.eval(),
        grid=grid,
        patch_size=patch_size,
        kept=kept_count(grid[0] * grid[1], content["mask_ratio"]),
        # An imported run may normalise pixels by other statistics than the runs trained here.
        mean=list(content.get("mean", IMAGENET_MEAN)),
        std=list(content.get("std", IMAGENET_STD)),
        phi_s=kept_phi_s(run, record["inputs"]),
    )


def trained_encoder(
    run: Path, arguments: Mapping[str, Any], *, averaged: bool = False
) -> VisionTransformer:
    """Make the encoder of a run's last checkpoint, whether the run has ended or not.

    Args:
        run: the run folder.
        arguments: what `timm.create_model` needs to make it.
        averaged: take the moving average of its weights.

    Raises:
        MissingDataError: there is no checkpoint.
        DataError: the last one is torn; one before it would be another encoder.
    """
    last = last_checkpoint(run)
    if last is None:
        raise MissingDataError(f"{run} holds no checkpoint; `pretrain` makes one")
    verify_checkpoint(last)
    weights = read_tensors(last / (AVERAGE if averaged else MODEL))
    encoder = cast("VisionTransformer", timm.create_model(**arguments))
    own = {
        name.removeprefix(ENCODER_PART): tensor
        for name, tensor in weights.items()
        if name.startswith(ENCODER_PART)
    }
    encoder.load_state_dict(own, strict=True)
    return encoder
