"""Write weights in forms that other programs load: timm's, MILAN's official code's, and our own.

`huggingface` has the form of transformers, and `onnx_file` that of ONNX.
"""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline.errors import DataError, reason_of
from milan_pipeline.models.weight_files import json_bytes
from milan_pipeline.weights.official import official_state, require_official
from milan_pipeline.weights.run_weights import described_encoder

# Arguments of create_model that are not part of the architecture.
NOT_OF_THE_MODEL = ("model_name", "pretrained", "num_classes", "checkpoint_path")
BICUBIC = "bicubic"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassHead:
    """What a classifier has beside an encoder.

    Attributes:
        outputs: of the head.
        names: of the outputs; empty if the data did not name them.
        crop_pct: share of the resized image's side that it was scored on.
    """

    outputs: int
    names: tuple[str, ...]
    crop_pct: float


def timm_files(
    model: Any, description: Mapping[str, Any], head: ClassHead | None = None
) -> dict[str, bytes]:
    """Lay a model out as timm's hub does: `timm.create_model("local-dir:FOLDER", ...)`.

    Args:
        model: of timm, with its weights.
        description: as `encoder.json` has it.
        head: of a classifier; None for an encoder.

    Returns:
        The bytes of each file, by name.
    """
    outputs = head.outputs if head else 0
    height, width = model.patch_embed.img_size
    arguments = {k: v for k, v in description["timm"].items() if k not in NOT_OF_THE_MODEL}
    names = {"label_names": list(head.names)} if head and head.names else {}
    config = {
        "architecture": description["timm"]["model_name"],
        "num_classes": outputs,
        "num_features": model.num_features,
        "global_pool": model.global_pool,
        "model_args": arguments,
        **names,
        "pretrained_cfg": {
            "num_classes": outputs,
            "input_size": [3, height, width],
            "fixed_input_size": True,
            "interpolation": BICUBIC,
            "crop_pct": head.crop_pct if head else 1.0,
            "crop_mode": "center",
            "mean": list(description["mean"]),
            "std": list(description["std"]),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        **licence_of(description),
    }
    weights = weights_bytes(model.state_dict())
    return {"model.safetensors": weights, "config.json": json_bytes(config)}


def official_files(state: Mapping[str, Tensor], encoder: VisionTransformer) -> dict[str, bytes]:
    """Lay a student with the prompting decoder out as MILAN's official code saves its own.

    Args:
        state: under the names of `Student`.
        encoder: the architecture that these weights, or a part of them, are of.

    Returns:
        The bytes of each file, by name.

    Raises:
        ConfigError: the official code has no such encoder.
    """
    require_official(encoder)
    buffer = io.BytesIO()
    # Sorted, for equal bytes: a safetensors file may be read in any order.
    torch.save({"model": dict(sorted(official_state(state).items()))}, buffer)
    return {"checkpoint.pth": buffer.getvalue()}


def own_files(state: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, bytes]:
    """Lay a model out as every `--encoder` and `--eval-only` takes it: weights and description.

    Args:
        state: under timm's names; of a segmenter, under those of `Segmenter`.
        description: what the `.json` beside the weights of the run holds.

    Returns:
        The bytes of each file, by name.
    """
    return {"model.safetensors": weights_bytes(state), "model.json": json_bytes(description)}


def encoder_with(state: Mapping[str, Tensor], description: Mapping[str, Any]) -> VisionTransformer:
    """Make the described encoder with these weights.

    Args:
        state: under timm's names.
        description: as `encoder.json` has it.

    Raises:
        DataError: they are not its own.
    """
    encoder = described_encoder(description)
    try:
        encoder.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        raise DataError(
            f"encoder.json describes another encoder than the weights are of "
            f"({reason_of(error)}); train or import anew"
        ) from error
    return encoder


def licence_of(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the licence of the teacher that an encoder learnt from, if it is known."""
    key = "teacher_license"
    return {key: description[key]} if key in description else {}


def weights_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Serialise weights as safetensors, marked as torch's for the programs that ask for that."""
    weights = {name: tensor.contiguous() for name, tensor in state.items()}
    return safetensors.torch.save(weights, metadata={"format": "pt"})
