"""Which ViTs of timm can be encoders, how they start, and how they are made again."""

import json
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load, save

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.positions import sincos_positions
from milan_pipeline.models.vit import build_encoder, encoder_arguments, own_sizes, tokens_of
from tests.support.students import NAME, SIZES, tiny_batch, tiny_student


def test_initialisation_is_milans():
    torch.manual_seed(0)
    vit = build_encoder(NAME, image_size=16, patch_size=4, width=64, depth=1, heads=2)
    weights = dict(vit.named_parameters())
    assert not weights["pos_embed"].requires_grad
    torch.testing.assert_close(weights["pos_embed"].data, sincos_positions((4, 4), 64))
    for name, fan in [("patch_embed.proj", 64 + 3 * 4 * 4), ("blocks.0.attn.qkv", 64 + 192)]:
        bound = (6 / fan) ** 0.5
        assert 0.98 * bound < weights[f"{name}.weight"].abs().max() <= bound
    biases = [weight for name, weight in weights.items() if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)
    assert torch.equal(weights["norm.weight"], torch.ones(64))
    assert 0.015 < weights["cls_token"].std() < 0.025
    assert vit.norm.eps == 1e-6


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("vit_small_patch14_reg4_dinov2", 0), ("vit_base_patch16_clip_224", 1)],
)
def test_other_vits_start_with_the_same_positions_and_tokens(name, prefix):
    torch.manual_seed(0)
    vit = build_encoder(name, **(SIZES | {"width": 64}))
    _, positions = tokens_of(vit)
    assert torch.equal(positions.data, sincos_positions((4, 6), 64)[:, 1 - prefix :])
    assert not positions.requires_grad
    for token in (vit.cls_token, vit.reg_token):
        assert token is None or 0.012 < token.std() < 0.028


@pytest.mark.parametrize("name", [NAME, "eva_large_patch14_196", "vit_base_patch16_radio_v3"])
def test_an_exported_encoder_loads_strictly_into_timm(name):
    encoder = tiny_student(name=name).encoder
    arguments = json.loads(json.dumps(encoder_arguments(name, **SIZES)))
    again = timm.create_model(**arguments)
    again.load_state_dict(load(save(encoder.state_dict())), strict=True)
    images, _, _ = tiny_batch()
    assert torch.equal(again.eval()(images), encoder.eval()(images))


@pytest.mark.parametrize("name", ["eva_large_patch14_196", "vit_base_patch16_radio_v3"])
def test_a_norm_that_pretraining_would_not_reach_becomes_one_of_all_tokens(name):
    encoder = tiny_student(name=name).encoder
    assert isinstance(encoder.norm, torch.nn.LayerNorm)
    assert isinstance(encoder.fc_norm, torch.nn.Identity)


def test_without_overrides_the_arguments_leave_everything_to_timm():
    assert encoder_arguments(NAME, image_size=None, patch_size=None) == {
        "model_name": NAME,
        "pretrained": False,
        "num_classes": 0,
    }


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vit_small_patch16_224", (224, 16)),
        ("vit_huge_patch14_224", (224, 14)),
        ("vit_large_patch16_384", (384, 16)),
        ("vit_small_patch14_reg4_dinov2", (518, 14)),
    ],
)
def test_a_name_says_its_sizes(name, sizes):
    assert own_sizes(name) == sizes


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_model", "no model that timm knows"),
        ("hf-hub:timm/vit_base_patch16_224.augreg", "no model that timm knows"),
        ("resnet18", "cannot be built as asked"),
        ("vit_relpos_small_patch16_224", "is not a VisionTransformer"),
        ("vit_base_patch16_siglip_224", "has no class token, which MILAN trains on CLIP's"),
        ("vit_base_patch16_reg4_gap_256", "has no class token, which MILAN trains on CLIP's"),
        ("vit_base_r50_s16_224", "looks beyond each"),
    ],
)
def test_another_kind_of_encoder_is_refused_by_name(name, reason):
    sizes: dict[str, Any] = SIZES | {"depth": 1}
    if name == "vit_base_r50_s16_224":
        sizes = {"image_size": None, "patch_size": None}
    with pytest.raises(ConfigError, match=reason) as caught:
        build_encoder(name, **sizes)
    assert repr(name) in str(caught.value)
    assert "vit" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": 18}, "18x18 pixels into square patches of 4x4"),
        ({"heads": 5}, "cannot be built as asked"),
        ({"width": 18}, "multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        build_encoder(NAME, **(SIZES | change))
