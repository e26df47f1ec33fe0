"""A timm encoder in the layout of `ViTModel` of Hugging Face's transformers.

Names are those of the models on the Hub; transformers 4 has them itself, 5 renames them on loading.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline.errors import ConfigError
from milan_pipeline.plain_vit import peculiarities

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
    for reason in peculiarities(encoder):
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
        f"the encoder {reason}, which ViTModel of transformers cannot express; export it by "
        "--form timm"
    )
