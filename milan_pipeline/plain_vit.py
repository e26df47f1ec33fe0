"""What a timm encoder has that a plain ViT has not, nor the code of others that knows no more."""

import re
from collections.abc import Iterator
from typing import Any

from timm.layers.mlp import Mlp
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import nn

PLAIN_PARAMETER = re.compile(
    r"cls_token|pos_embed|"
    r"(patch_embed\.proj|norm|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]))\.(weight|bias)"
)


def peculiarities(vit: VisionTransformer) -> Iterator[str]:
    """Yield what sets a ViT apart, as "has register tokens"; later ones may follow from the first.

    Biases of the joined queries, keys and values are not among it: code of others can often do
    without them.
    """
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
    others = (name for name in vit.state_dict() if not PLAIN_PARAMETER.fullmatch(name))
    yield from (f"has the parameter {name!r}" for name in others)


def _peculiarities_of_blocks(vit: VisionTransformer) -> Iterator[str]:
    blocks = _blocks(vit)
    if not all(isinstance(block.ls1, nn.Identity) for block in blocks):
        yield "has layer scale"
    if not all(isinstance(block.attn.q_norm, nn.Identity) for block in blocks):
        yield "has norms of queries and keys"
    if not all(type(block.mlp) is Mlp and _is_gelu(block.mlp.act) for block in blocks):
        yield "has another MLP than linear, GELU, linear"
    joined = [block.attn.qkv for block in blocks]
    layers = [layer for layer in vit.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if any(layer.bias is None for layer in layers if layer not in joined):
        yield "lacks biases"
    if len({norm.eps for norm in vit.modules() if isinstance(norm, nn.LayerNorm)}) != 1:
        yield "has norms of different epsilon"


def _blocks(vit: VisionTransformer) -> list[Any]:
    return list(vit.blocks)


def _is_gelu(activation: nn.Module) -> bool:
    return isinstance(activation, nn.GELU) and activation.approximate == "none"
