"""Gives the image tower of a CLIP as a transformer of timm, without its projection.

timm itself converts the weights of open_clip's own vision transformer; where open_clip wraps a
model of timm, that model is taken as it is.
"""

import math
from typing import Any

import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from milan_pipeline.encoders.backbone import EncoderParts, backbone_arguments
from milan_pipeline.encoders.names import as_encoder, clip_spec
from milan_pipeline.errors import ConfigError, reason_of
from milan_pipeline.models.vit import CANNOT_BUILD
from milan_pipeline.teacher.load_by_name import blank_visual, load_visual
from milan_pipeline.teacher.statistics import settled_statistics

# A model's name in timm fixes the epsilon of its norms; all else are arguments.
BY_EPSILON = {1e-5: "vit_base_patch16_clip_224", 1e-6: "vit_base_patch16_224"}


def read_clip_encoder(rest: str, *, random_init: bool = False) -> EncoderParts:
    """Load a CLIP's image tower as a transformer of timm.

    Args:
        rest: `MODEL/TAG`, `local-dir:PATH` or `hf-hub:REPO`.
        random_init: read its configuration only; weights are to be drawn.

    Raises:
        ConfigError: it cannot be had, or timm cannot express it.
    """
    spec = clip_spec(rest)
    with as_encoder(rest):
        visual: Any = blank_visual(spec) if random_init else load_visual(spec)
        mean, std = settled_statistics(spec)
    arguments, state = as_timm(visual, rest)
    return EncoderParts(arguments, None if random_init else state, mean, std)


def as_timm(visual: nn.Module, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Express an image tower as timm's: `backbone_arguments`, and weights under timm's names.

    Args:
        visual: of open_clip, on any device.
        name: what errors call it.

    Raises:
        ConfigError: timm cannot express it.
    """
    if isinstance(visual, VisionTransformer):
        _require_expressible(visual, name)
        arguments = backbone_arguments(_arguments(visual))
        return arguments, _state(visual, arguments)
    if isinstance(visual, TimmModel):
        return _trunk(visual, name)
    raise ConfigError(
        f"--encoder 'open_clip:{name}' is a {type(visual).__name__}, which no transformer of timm "
        "expresses; choose a vision transformer such as ViT-B-16"
    )


def _require_expressible(visual: VisionTransformer, name: str) -> None:
    block = visual.transformer.resblocks[0]
    reason = ""
    if visual.attn_pool is not None:
        reason = "norms what it has pooled by attention and no tokens"
    elif type(block) is not ResidualAttentionBlock:
        reason = "has attention blocks of open_clip's own kind"
    elif _activation(visual) is None:
        reason = f"has the activation {block.mlp.gelu}"
    elif visual.ln_post.eps not in BY_EPSILON:
        reason = f"has norms with the epsilon {visual.ln_post.eps}"
    if reason:
        raise ConfigError(
            f"--encoder 'open_clip:{name}' {reason}, which no transformer of timm does; choose "
            "another CLIP such as ViT-B-16"
        )


def _arguments(visual: VisionTransformer) -> dict[str, Any]:
    block = visual.transformer.resblocks[0]
    width, hidden = block.mlp.c_fc.in_features, block.mlp.c_fc.out_features
    ratio = hidden / width
    if int(width * ratio) != hidden:  # timm rounds the product down
        ratio = math.nextafter(ratio, math.inf)
    arguments = {
        "model_name": BY_EPSILON[visual.ln_post.eps],
        "img_size": list(visual.image_size),
        "patch_size": int(visual.patch_size[0]),
        "embed_dim": width,
        "depth": len(visual.transformer.resblocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": ratio,
        "pre_norm": not isinstance(visual.ln_pre, nn.Identity),
        "act_layer": _activation(visual),
    }
    scale = getattr(block.ls_1, "gamma", None)
    return arguments | ({} if scale is None else {"init_values": 1e-5})  # their start, if drawn


def _activation(visual: VisionTransformer) -> str | None:
    """Return timm's name of the activation; None if timm does not have it."""
    activation = visual.transformer.resblocks[0].mlp.gelu
    if isinstance(activation, QuickGELU):
        return "quick_gelu"
    if isinstance(activation, nn.GELU):
        return "gelu" if activation.approximate == "none" else "gelu_tanh"
    return None


def _state(visual: VisionTransformer, arguments: dict[str, Any]) -> dict[str, Tensor]:
    named = {
        f"visual.{key}".replace(".ls_", ".ls"): value for key, value in visual.state_dict().items()
    }
    with torch.device("meta"):
        model: Any = timm.create_model(**arguments)
    state: dict[str, Tensor] = checkpoint_filter_fn(named, model)
    if not arguments["pre_norm"]:  # then timm's patches have a bias
        state["patch_embed.proj.bias"] = state["cls_token"].new_zeros(arguments["embed_dim"])
    return state


def _trunk(visual: TimmModel, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    trunk: Any = visual.trunk
    size = getattr(getattr(trunk, "patch_embed", None), "img_size", None)
    described = {"model_name": trunk.pretrained_cfg["architecture"]}
    if size is not None:
        described["img_size"] = list(size)
    try:
        arguments = backbone_arguments(described)
    except ConfigError:
        raise
    except CANNOT_BUILD as error:
        raise ConfigError(
            f"--encoder 'open_clip:{name}' cannot be trained ({reason_of(error)}); choose "
            "another CLIP such as ViT-B-16"
        ) from error
    return arguments, dict(trunk.state_dict())
