"""AdamW for fine-tuning a ViT: the deeper a layer lies, the slower it learns.

The rule of BEiT (arXiv 2106.08254) and MAE (2111.06377): layer 0 is what makes tokens of an image,
layer i is block i, layer depth + 1 is all that comes after; a layer's learning rate is scaled by
decay^(depth + 1 - layer). `timm.optim.param_groups_layer_decay` has the final norm of a ViT that
pools by its class token learn with the last block instead.
"""

from typing import Any

import torch
from torch import nn

BETAS = (0.9, 0.999)
STEM = ("cls_token", "reg_token", "dist_token", "pos_embed", "patch_embed.", "norm_pre.")
BLOCKS = "blocks."


def layer_of(name: str, depth: int) -> int:
    """Return the layer, from 0 to depth + 1, of a ViT's parameter by its name in timm."""
    if name.startswith(BLOCKS):
        return int(name.split(".")[1]) + 1
    return 0 if name.startswith(STEM) else depth + 1


def layer_decay_groups(
    model: nn.Module,
    *,
    layer_decay: float,
    weight_decay: float,
    encoder: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Divide what is trained into an optimiser's groups, each with its `lr_scale`.

    Weights of more than one dimension are decayed, except tokens and positions, as in the official
    code.

    Args:
        model: all its parameters that require gradients are dealt out.
        layer_decay: scale of a layer's learning rate, for each layer that comes after it.
        weight_decay: of the groups that are decayed.
        encoder: the ViT in it; None where it is the whole model. What lies outside has scale 1.

    Returns:
        Groups of `params`, `weight_decay` and `lr_scale`, those of the first layers first.
    """
    vit: Any = model if encoder is None else encoder
    depth, names = len(vit.blocks), {id(p): name for name, p in vit.named_parameters()}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            name = names.get(id(parameter), "")
            decayed = parameter.ndim > 1 and name not in vit.no_weight_decay()
            groups.setdefault((layer_of(name, depth), decayed), []).append(parameter)
    return [
        {
            "params": groups[layer, decayed],
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_scale": layer_decay ** (depth + 1 - layer),
        }
        for layer, decayed in sorted(groups)
    ]


def fine_tuning_optimiser(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Return fused AdamW with betas (0.9, 0.999); the learning rate is set anew at each step."""
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
