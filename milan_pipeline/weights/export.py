"""Write weights in forms that other programs load: timm, transformers, MILAN's official code.

For transformers, a timm encoder gets the layout of `ViTModel`. Its names are those of the models on
the Hub: transformers 4 uses them, transformers 5 renames them when it loads them.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline.errors import ConfigError, DataError, reason_of
from milan_pipeline.models.weight_files import _json
from milan_pipeline.weights.official import differences_from_plain, official_state, require_official
from milan_pipeline.weights.run_weights import described_encoder

# Arguments of create_model that are not part of the architecture.
NOT_OF_THE_MODEL = ("model_name", "pretrained", "num_classes", "checkpoint_path")


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
            **_licence(description),
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
    config = vit_model_config(encoder) | {"torch_dtype": "float32"} | _licence(description)
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
    # Sorted, for equal bytes: a safetensors file may be read in any order.
    torch.save({"model": dict(sorted(official_state(state).items()))}, buffer)
    return {"checkpoint.pth": buffer.getvalue()}


def _licence(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the licence of the teacher that an encoder learnt from, if it is known."""
    return {"license": description["license"]} if "license" in description else {}


def _encoder(state: Mapping[str, Tensor], description: Mapping[str, Any]) -> VisionTransformer:
    """Make the described encoder with these weights.

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


def _safetensors(state: Mapping[str, Tensor]) -> bytes:
    weights = {name: tensor.contiguous() for name, tensor in state.items()}
    return safetensors.torch.save(weights, metadata={"format": "pt"})


BICUBIC = 3  # PIL.Image.Resampling's number
OUTER = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
IN_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
QKV = ("query", "key", "value")


def vit_model_config(encoder: VisionTransformer) -> dict[str, Any]:
    """Return `config.json` of the `ViTModel` that computes what the encoder does.

    Raises:
        ConfigError: `ViTModel` cannot express the encoder; what it lacks is named.
    """
    for reason in differences_from_plain(encoder):
        raise _inexpressible(reason)
    block: Any = encoder.blocks[0]
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "image_size": encoder.patch_embed.img_size[0],
        "patch_size": encoder.patch_embed.patch_size[0],
        "num_channels": encoder.patch_embed.proj.in_channels,
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "qkv_bias": block.attn.qkv.bias is not None,
        "layer_norm_eps": encoder.norm.eps,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "encoder_stride": encoder.patch_embed.patch_size[0],
    }


def preprocessor_config(size: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Return `preprocessor_config.json` for square views of `size` pixels."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def vit_model_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an encoder's weights under the names of `ViTModel`, unchanged but for the split qkv.

    Args:
        state: under timm's names.

    Raises:
        ConfigError: `ViTModel` has no place for one of them.
    """
    return {renamed: part for name in state for renamed, part in _renamed(name, state[name])}


def _renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a parameter's new name and value; three of each for the joined qkv."""
    if name in OUTER:
        yield OUTER[name], tensor
        return
    layer, _, kind = name.rpartition(".")
    if layer in OUTER:
        yield f"{OUTER[layer]}.{kind}", tensor
        return
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", layer)
    number, place = found.groups() if found else ("", "")
    new = f"encoder.layer.{number}"
    if place in IN_BLOCK:
        yield f"{new}.{IN_BLOCK[place]}.{kind}", tensor
    elif place == "attn.qkv":
        for part, value in zip(QKV, tensor.chunk(3), strict=True):
            yield f"{new}.attention.attention.{part}.{kind}", value
    else:
        raise _inexpressible(f"has the parameter {name!r}")


def _inexpressible(reason: str) -> ConfigError:
    return ConfigError(
        f"the encoder {reason}, which ViTModel of transformers cannot express; export it with "
        "--form timm"
    )
