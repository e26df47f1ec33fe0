"""A timm encoder in the layout of `ViTModel` of Hugging Face's transformers.

Names are those of the models on the Hub; transformers 4 has them itself, 5 renames them on loading.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from timm.layers.mlp import Mlp
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError

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
    _require_expressible(encoder)
    block = _blocks(encoder)[0]
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


def _require_expressible(encoder: VisionTransformer) -> None:
    reason = next(_peculiarities(encoder), None)
    if reason is not None:
        raise _inexpressible(reason)
    vit_model_state(encoder.state_dict())


def _inexpressible(reason: str) -> ConfigError:
    return ConfigError(
        f"the encoder {reason}, which ViTModel of transformers cannot express; export it by "
        "--form timm"
    )


def _peculiarities(vit: VisionTransformer) -> Iterator[str]:
    """Yield what `ViTModel` cannot express; those after the first may follow from it."""
    plain = type(vit) is VisionTransformer
    if not plain or not all(type(block) is Block for block in _blocks(vit)):
        yield "is no plain VisionTransformer of timm"
    height, width = vit.patch_embed.img_size
    p, q = vit.patch_embed.patch_size
    if height != width or p != q:
        yield f"sees {height}x{width} pixels in patches of {p}x{q}"
    if vit.reg_token is not None:
        yield "has register tokens"
    if not vit.has_class_token or vit.no_embed_class or vit.pos_embed is None:
        yield "has no class token with a position"
    if not all(isinstance(norm, nn.Identity) for norm in (vit.norm_pre, vit.patch_embed.norm)):
        yield "has a norm before its blocks"
    if not isinstance(vit.norm, nn.LayerNorm):
        yield "does not end in a norm of all tokens"
    yield from _peculiarities_of_blocks(vit)


def _peculiarities_of_blocks(vit: VisionTransformer) -> Iterator[str]:
    blocks = _blocks(vit)
    if not all(isinstance(block.ls1, nn.Identity) for block in blocks):
        yield "has layer scale"
    if not all(isinstance(block.attn.q_norm, nn.Identity) for block in blocks):
        yield "has norms of queries and keys"
    if not all(type(block.mlp) is Mlp and _is_gelu(block.mlp.act) for block in blocks):
        yield "has another MLP than linear, GELU, linear"
    joined = [block.attn.qkv for block in blocks]  # ViTModel can do without their biases
    layers = [layer for layer in vit.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if any(layer.bias is None for layer in layers if layer not in joined):
        yield "lacks biases"
    if len({norm.eps for norm in vit.modules() if isinstance(norm, nn.LayerNorm)}) != 1:
        yield "has norms of different epsilon"


def _blocks(vit: VisionTransformer) -> list[Any]:
    return list(vit.blocks)


def _is_gelu(activation: nn.Module) -> bool:
    return isinstance(activation, nn.GELU) and activation.approximate == "none"
