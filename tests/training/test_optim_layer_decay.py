"""Which layer learns how fast, and what is decayed: worked out by hand, and as timm has it."""

from typing import Any

import pytest
import timm
import torch
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn

from milan_pipeline.training.optim import fine_tuning_optimiser, layer_decay_groups

VIT: dict[str, Any] = {"depth": 3, "embed_dim": 16, "num_heads": 2, "img_size": 32, "patch_size": 8}


def vit(name="vit_tiny_patch16_224", pool="avg"):
    return timm.create_model(name, **VIT, num_classes=5, global_pool=pool)


def by_name(model, groups):
    of = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    return {name: of[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_every_layer_of_the_official_rule(pool):
    model = vit(pool=pool)
    found = by_name(model, layer_decay_groups(model, layer_decay=0.5, weight_decay=0.05))
    norm = "fc_norm" if pool == "avg" else "norm"
    expected = {
        "cls_token": (0.0625, 0.0),
        "pos_embed": (0.0625, 0.0),
        "patch_embed.proj.weight": (0.0625, 0.05),
        "patch_embed.proj.bias": (0.0625, 0.0),
        f"{norm}.weight": (1.0, 0.0),
        f"{norm}.bias": (1.0, 0.0),
        "head.weight": (1.0, 0.05),
        "head.bias": (1.0, 0.0),
    }
    for block, scale in enumerate((0.125, 0.25, 0.5)):
        for layer in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            decay = 0.0 if "norm" in layer else 0.05
            expected[f"blocks.{block}.{layer}.weight"] = (scale, decay)
            expected[f"blocks.{block}.{layer}.bias"] = (scale, 0.0)
    assert found == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_clip_224"])
def test_the_rule_is_timms_where_tokens_are_averaged(name):
    model = vit(name)
    ours = layer_decay_groups(model, layer_decay=0.65, weight_decay=0.1)
    skipped = model.no_weight_decay()
    timms = param_groups_layer_decay(model, 0.1, skipped, layer_decay=0.65)
    assert by_name(model, ours) == by_name(model, timms)


def test_what_is_not_of_the_encoder_learns_at_full_rate_and_what_is_frozen_not_at_all():
    model = nn.ModuleDict({"encoder": vit(), "decoder": nn.Linear(3, 4)})
    model["encoder"].pos_embed.requires_grad_(False)
    groups = layer_decay_groups(model, layer_decay=0.5, weight_decay=0.1, encoder=model["encoder"])
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    decoder = {id(p): p.ndim for p in model["decoder"].parameters()}
    of_decoder = {
        (decoder[id(p)], g["lr_scale"], g["weight_decay"])
        for g in groups
        for p in g["params"]
        if id(p) in decoder
    }
    assert of_decoder == {(1, 1.0, 0.0), (2, 1.0, 0.1)}


def test_the_optimiser_is_adamw_with_the_official_betas():
    model = vit()
    optimiser = fine_tuning_optimiser(layer_decay_groups(model, layer_decay=0.5, weight_decay=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    optimiser.step()
    state = optimiser.state[model.head.weight]
    torch.testing.assert_close(state["exp_avg"], torch.full_like(model.head.weight, 0.2))
    torch.testing.assert_close(state["exp_avg_sq"], torch.full_like(model.head.weight, 0.004))
