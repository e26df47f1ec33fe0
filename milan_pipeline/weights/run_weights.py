"""Read the weights of a run, for an export, an encoder or another run."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline import storage
from milan_pipeline.errors import DataError, MismatchError, MissingDataError, reason_of
from milan_pipeline.models.build import StudentSpec
from milan_pipeline.models.vit import CANNOT_BUILD, encoder_arguments
from milan_pipeline.models.weight_files import (
    EMA_ENCODER,
    ENCODER,
    plain_tensors,
    read_encoder_description,
)
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME, require_ended, state_of
from milan_pipeline.storage.checksums import read_checked
from milan_pipeline.training.checkpoints import AVERAGE, MODEL, newest_checkpoint

ENCODER_PART = "encoder."


class RunWeights(NamedTuple):
    """Weights under the names of `Student`, and the sha256 of the file that they came from."""

    state: dict[str, Tensor]
    sha256: str


def require_finished(run: Path, *, allow_unfinished: bool = False) -> None:
    """Refuse a folder that holds no run that trained a student, and one that is not done.

    Args:
        run: the folder.
        allow_unfinished: whether it may be not done.

    Raises:
        MissingDataError: there is no run.
        MismatchError: it is not done, or it trained no student.
    """
    require_ended(run, allow_unfinished=allow_unfinished)
    require_student(run)


def student_weights(run: Path) -> RunWeights | None:
    """Read the student of a run's newest whole checkpoint; None where there is no checkpoint."""
    newest = newest_checkpoint(run)
    return None if newest is None else read_weights(newest[1] / MODEL)


def encoder_weights(run: Path, *, ema: bool = False) -> RunWeights:
    """Read a run's encoder, under timm's names, from `encoder_file`; raises as that does.

    Args:
        run: its folder.
        ema: whether to read the exponential moving average of the weights.

    Raises:
        DataError: it is damaged.
    """
    weights = read_weights(encoder_file(run, ema=ema))
    return weights._replace(state=encoder_part(weights.state))


def encoder_file(run: Path, *, ema: bool = False) -> Path:
    """Return the file with a run's encoder: `encoder.safetensors` or that of a checkpoint.

    While an extended run is not done, its `encoder.safetensors` is that of the earlier end. Then
    the newest checkpoint is read, which has the whole student.

    Args:
        run: its folder.
        ema: whether the exponential moving average of the weights is meant.

    Raises:
        MissingDataError: there is no such file.
        DataError: all checkpoints are torn.
    """
    path = run / (EMA_ENCODER if ema else ENCODER)
    if storage.exists(str(path)) and state_of(str(run)) not in (None, "done"):
        newest = newest_checkpoint(run)
        path = path if newest is None else newest[1] / (AVERAGE if ema else MODEL)
    if not storage.exists(str(path)):
        require_student(run)
        remedy = "leave out --ema" if ema else "run pretrain to its end, which writes it"
        raise MissingDataError(f"{run} has no {path.name}; {remedy}")
    return path


def require_student(run: Path) -> None:
    """Refuse a run that trained no student.

    Raises:
        MismatchError: it is of `finetune` or `segment`.
    """
    record = read_record(str(run / CONFIG_NAME))
    stage = "pretrain" if record is None else record.get("stage", "pretrain")
    if stage in ("finetune", "segment"):
        raise MismatchError(
            f"{run} is a run of {stage}, which has no separate encoder; give a run of pretrain or, "
            f"where an encoder is asked for, its model {run / 'best.safetensors'}"
        )


def encoder_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's weights, under timm's names, of a student or of an encoder alone."""
    own = {
        name.removeprefix(ENCODER_PART): tensor
        for name, tensor in state.items()
        if name.startswith(ENCODER_PART)
    }
    return own or dict(state)


def encoder_description(run: Path) -> dict[str, Any]:
    """Read a run's `encoder.json`; see `weight_files.read_encoder_description`."""
    return read_encoder_description(str(run / "encoder.json"))


def described_encoder(description: Mapping[str, Any]) -> VisionTransformer:
    """Make the encoder that `encoder.json` describes, on torch's meta device: without weights.

    Raises:
        DataError: timm cannot make it.
    """
    arguments = description["timm"]
    # The file may come from a stranger: it must not make timm fetch or unpickle anything.
    harmless = {"pretrained": False, "checkpoint_path": "", "num_classes": 0}
    try:
        if not timm.is_model(arguments["model_name"]):
            raise ValueError(f"timm knows no {arguments['model_name']!r}")
        with torch.device("meta"):
            encoder = timm.create_model(**(arguments | harmless))
        if not isinstance(encoder, VisionTransformer):
            raise TypeError(f"{arguments['model_name']!r} is no ViT")
    except (KeyError, *CANNOT_BUILD) as error:
        raise DataError(
            f"encoder.json describes no encoder ({reason_of(error)}); train or import again"
        ) from error
    return encoder


def recorded_encoder(run: Path, state: Mapping[str, Tensor]) -> VisionTransformer:
    """Make the encoder that a run's record describes, finished or not, on torch's meta device.

    Args:
        run: its folder.
        state: of its student; its shapes give the image size.

    Raises:
        MissingDataError: there is no record.
        ConfigError: timm cannot make the encoder.
    """
    record = read_record(str(run / CONFIG_NAME))
    if record is None:
        raise MissingDataError(f"{run} has no {CONFIG_NAME}; restore it")
    spec = StudentSpec.from_content(record["content"])
    positions = state[f"{ENCODER_PART}pos_embed"].shape[1]  # tokens that are no patch: a few more
    patch = state[f"{ENCODER_PART}patch_embed.proj.weight"].shape[-1]
    arguments = encoder_arguments(
        spec.name,
        image_size=math.isqrt(positions) * patch,
        patch_size=patch,
        width=spec.width,
        depth=spec.depth,
        heads=spec.heads,
    )
    return described_encoder({"timm": arguments})


def read_weights(path: Path) -> RunWeights:
    """Read a file of weights, checked against its hash.

    Raises:
        DataError: it is damaged.
    """
    state = plain_tensors(str(path), read_checked(str(path)), remedy="train or import anew")
    return RunWeights(state, weights_sha256(str(path)))


def weights_sha256(url: str) -> str:
    """Return the sha256 of a file of weights.

    Raises:
        MissingDataError: there is no such file.
    """
    return hashlib.sha256(storage.read_bytes(url)).hexdigest()
