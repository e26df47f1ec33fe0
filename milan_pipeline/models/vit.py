"""Which of timm's vision transformers can be a student's encoder, and how it is built.

MILAN's encoder sees the kept patches alone, has a class token, fixed positions and a norm at its
end. Every `VisionTransformer` of timm that allows it is accepted, by any name: register tokens,
norms before the blocks, layer scale and the like are computed as timm's own forward pass would.
"""

import functools
import json
from typing import Any, cast

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import VisionTransformer
from torch import nn

from milan_pipeline.errors import ConfigError, reason_of
from milan_pipeline.models.blocks import TOKEN_STD, init_linear_and_norm
from milan_pipeline.models.positions import sincos_positions
from milan_pipeline.models.timm_names import require_model

CANNOT_BUILD = (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError)
# A norm of the pooled output would get no gradient in pretraining: it becomes one of all tokens.
FINAL_NORM = {"final_norm": True, "fc_norm": False}


def encoder_arguments(
    name: str,
    *,
    image_size: int | tuple[int, int] | None,
    patch_size: int | None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
) -> dict[str, Any]:
    """Return what `timm.create_model(**arguments)` needs to make this architecture again.

    The dict is plain JSON; it belongs to the exported weights, which load into the model it
    makes strictly. Arguments are those of `build_encoder`; None leaves timm's own value. Names
    whose norm comes after pooling, or that have none (EVA and RADIO, say), get `final_norm`.

    Raises:
        ConfigError: as `build_encoder` does.
    """
    overrides = {
        "img_size": list(image_size) if isinstance(image_size, tuple) else image_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    arguments = {"model_name": name, "pretrained": False, "num_classes": 0, **given}
    if isinstance(_outline(arguments).norm, nn.Identity):
        arguments |= FINAL_NORM
    return arguments


def build_encoder(
    name: str,
    *,
    image_size: int | tuple[int, int] | None,
    patch_size: int | None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
) -> VisionTransformer:
    """Build a timm vision transformer with MILAN's initialisation and fixed positions.

    Weights come from torch's global random state: seed it first. What MILAN does not have (layer
    scale, norms of queries and keys) starts as timm makes it, register tokens as class tokens do.

    Args:
        name: a timm model; it must be a `VisionTransformer` with a class token.
        image_size: pixels of a side, or (height, width); None is the model's own.
        patch_size: pixels of a patch's side; None is the model's own.
        width: E; None is the model's own, as for the next two.
        depth: blocks.
        heads: attention heads of a block.

    Returns:
        The model, without a classifier; its `pos_embed` is not trained.

    Raises:
        ConfigError: the name is unknown, the model is of another kind, or the sizes do not fit.
    """
    arguments = encoder_arguments(
        name, image_size=image_size, patch_size=patch_size, width=width, depth=depth, heads=heads
    )
    vit = cast("VisionTransformer", timm.create_model(**arguments))
    _initialise(vit)
    return vit


def own_sizes(name: str) -> tuple[int, int]:
    """Return the height of the images that a timm ViT is made for, and its patches', in pixels.

    Raises:
        ConfigError: the name is unknown or no ViT of it can be an encoder.
    """
    embed = _outline({"model_name": name, "pretrained": False, "num_classes": 0}).patch_embed
    return int((embed.img_size or (0,))[0]), int(embed.patch_size[0])


def settled_sizes(arguments: dict[str, Any]) -> dict[str, int]:
    """Return what `encoder_arguments` leave to timm, by the options of `pretrain`.

    Raises:
        ConfigError: as `build_encoder` does.
    """
    vit = _outline(arguments)
    image, patch = vit.patch_embed.img_size or (0,), vit.patch_embed.patch_size
    heads = cast("int", cast("Any", vit.blocks[0]).attn.num_heads)
    return {
        "image_size": int(image[0]),
        "patch_size": int(patch[0]),
        "width": int(vit.embed_dim),
        "depth": len(vit.blocks),
        "heads": heads,
    }


def tokens_of(vit: VisionTransformer) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the class token and the positions, which any encoder here has."""
    return cast("nn.Parameter", vit.cls_token), cast("nn.Parameter", vit.pos_embed)


def _outline(arguments: dict[str, Any]) -> VisionTransformer:
    """Build a model without memory for its weights; refuse what cannot be an encoder."""
    return _outlined(json.dumps(arguments))


@functools.lru_cache(maxsize=64)
def _outlined(described: str) -> VisionTransformer:
    """Do the work of `_outline`, which a run asks for several times."""
    arguments: dict[str, Any] = json.loads(described)
    name = arguments["model_name"]
    require_model(name)
    try:
        with torch.device("meta"):
            model = timm.create_model(**arguments)
    except CANNOT_BUILD as error:
        raise ConfigError(
            f"--student {name!r} cannot be built as asked ({reason_of(error)}); "
            "choose a plain ViT such as 'vit_base_patch16_224' and sizes that divide"
        ) from error
    reasons = ["is not a VisionTransformer of timm"]
    if type(model) is VisionTransformer:
        reasons = [reason for reason, holds in _obstacles(model).items() if holds]
        if not reasons:
            return model
    raise ConfigError(
        f"--student {name!r} {reasons[0]}; choose a plain ViT such as 'vit_base_patch16_224'"
    )


def _obstacles(vit: VisionTransformer) -> dict[str, bool]:
    """Map what would keep a ViT from being MILAN's encoder to whether it does."""
    embed = vit.patch_embed
    if not isinstance(embed, PatchEmbed):
        return {"embeds patches by a network that looks beyond each: MILAN embeds some alone": True}
    height, width = embed.img_size or (0, 0)
    p, q = embed.patch_size
    return {
        "has no class token, which MILAN trains on CLIP's": not vit.has_class_token,
        "has no positions, without which all masked patches are the same": (vit.pos_embed is None),
        "pools by attention, which pretraining would leave untrained": vit.attn_pool is not None,
        f"cannot cut {height}x{width} pixels into square patches of {p}x{q}": p != q
        or bool(height % p or width % p),
    }


def _initialise(vit: VisionTransformer) -> None:
    init_linear_and_norm(vit)
    projection = vit.patch_embed.proj
    nn.init.xavier_uniform_(projection.weight.flatten(1))  # a view: a linear layer on patches
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    cls_token, positions = tokens_of(vit)
    for token in (cls_token, vit.reg_token):
        if token is not None:
            nn.init.normal_(token, std=TOKEN_STD)
    table_1NE = sincos_positions(vit.patch_embed.grid_size, vit.embed_dim)[:, 1:]
    prefix = positions.shape[1] - table_1NE.shape[1]  # of tokens that are no patch: zeros
    positions.requires_grad_(False).copy_(nn.functional.pad(table_1NE, (0, 0, prefix, 0)))
