"""Write weights so that others load them: the encoder for timm and transformers, or all of it."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline.errors import DataError
from milan_pipeline.huggingface import preprocessor_config, vit_model_config, vit_model_state
from milan_pipeline.official import official_state, require_official
from milan_pipeline.run_weights import described_encoder
from milan_pipeline.sums import put_with_sums

# What create_model takes beside the arguments of the architecture itself.
NOT_OF_THE_MODEL = ("model_name", "pretrained", "num_classes", "checkpoint_path")


def export_encoder(
    run: Path,
    encoder: VisionTransformer,
    arguments: Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    name: str = "encoder",
) -> None:
    """Write `encoder.safetensors`, `encoder.json` and their hashes, `encoder.sha256`.

    Args:
        run: the run folder.
        encoder: its weights are written under timm's names.
        arguments: what `timm.create_model` needs to make the architecture again.
        mean: of the pixels that it was trained on, in [0, 1].
        std: likewise.
        name: of the files, without their endings.
    """
    description = {"timm": dict(arguments), "mean": list(mean), "std": list(std)}
    put_weights(run, name, encoder.state_dict(), description)


def put_weights(
    run: Path, name: str, state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write `NAME.safetensors`, `NAME.json` and their hashes, `NAME.sha256`, each atomically.

    Args:
        run: the run folder.
        name: of the files.
        state: weights under timm's names.
        description: as `encoder.json` has it, at least.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    files = {
        f"{name}.safetensors": safetensors.torch.save(weights),
        f"{name}.json": _json(description),
    }
    put_with_sums(str(run), files)


def timm_files(state: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, bytes]:
    """Lay an encoder out as timm's hub does: `timm.create_model("local-dir:FOLDER", ...)`.

    Args:
        state: under timm's names.
        description: as `encoder.json` has it.

    Returns:
        The bytes of each file, by name.

    Raises:
        DataError: the weights are not those of the described architecture.
    """
    encoder = _encoder(state, description)
    height, width = encoder.patch_embed.img_size
    arguments = {k: v for k, v in description["timm"].items() if k not in NOT_OF_THE_MODEL}
    config = {
        "architecture": description["timm"]["model_name"],
        "num_classes": 0,
        "num_features": encoder.num_features,
        "global_pool": encoder.global_pool,
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, height, width],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(description["mean"]),
            "std": list(description["std"]),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    return {"model.safetensors": _safetensors(state), "config.json": _json(config)}


def huggingface_files(
    state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> dict[str, bytes]:
    """Lay an encoder out as transformers does: `ViTModel.from_pretrained(FOLDER, ...)`.

    Arguments and return value are those of `timm_files`.

    Raises:
        ConfigError: `ViTModel` cannot express the encoder.
        DataError: the weights are not those of the described architecture.
    """
    encoder = _encoder(state, description)
    config = vit_model_config(encoder) | {"torch_dtype": "float32"}
    preprocessor = preprocessor_config(
        config["image_size"], description["mean"], description["std"]
    )
    return {
        "model.safetensors": _safetensors(vit_model_state(state)),
        "config.json": _json(config),
        "preprocessor_config.json": _json(preprocessor),
    }


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
    # In an order of its own, for equal bytes: that of a safetensors file read anew is any.
    torch.save({"model": dict(sorted(official_state(state).items()))}, buffer)
    return {"checkpoint.pth": buffer.getvalue()}


def _encoder(state: Mapping[str, Tensor], description: Mapping[str, Any]) -> VisionTransformer:
    """Make the described encoder with these weights.

    Raises:
        DataError: they are not its own.
    """
    encoder = described_encoder(description)
    try:
        encoder.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"encoder.json describes another encoder than the weights are of ({reason}); train or "
            "import anew"
        ) from error
    return encoder


def _safetensors(state: Mapping[str, Tensor]) -> bytes:
    weights = {name: tensor.contiguous() for name, tensor in state.items()}
    return safetensors.torch.save(weights, metadata={"format": "pt"})


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()
