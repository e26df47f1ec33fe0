"""A timm encoder as `ViTModel`: names, the split qkv, and what cannot be expressed."""

import json

import pytest
import timm
import torch

from milan_pipeline.errors import ConfigError
from milan_pipeline.weights.export import (
    huggingface_files,
    preprocessor_config,
    timm_files,
    vit_model_config,
    vit_model_state,
)
from tests.support.students import merged

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def encoder(name="vit_base_patch16_224", device="cpu", **changes):
    with torch.device(device):
        return timm.create_model(name, num_classes=0, **(SMALL | changes))


@pytest.mark.parametrize("bias", [True, False])
def test_split_and_merged_the_weights_are_equal_to_the_bit(bias):
    state = encoder(qkv_bias=bias).state_dict()
    again = merged(vit_model_state(state))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_the_licence_of_the_teacher_is_told():
    model = {"model_name": "vit_base_patch16_224", **SMALL}
    description = {"timm": model, "mean": [0.5] * 3, "std": [0.5] * 3}
    state = encoder().state_dict()
    for licence in ({}, {"license": "cc-by-nc-4.0"}):
        config = json.loads(timm_files(state, description | licence)["config.json"])
        assert config["pretrained_cfg"].get("license") == licence.get("license")
        config = json.loads(huggingface_files(state, description | licence)["config.json"])
        assert config.get("license") == licence.get("license")


def test_config_tells_the_sizes():
    config = vit_model_config(encoder(mlp_ratio=2))
    told = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    assert [config[name] for name in told] == [32, 8, 16, 2, 2]
    assert (config["intermediate_size"], config["layer_norm_eps"]) == (32, 1e-6)
    assert (config["hidden_act"], config["qkv_bias"]) == ("gelu", True)
    assert not vit_model_config(encoder(qkv_bias=False))["qkv_bias"]
    processor = preprocessor_config(32, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert processor["size"] == {"height": 32, "width": 32}
    assert (processor["resample"], processor["image_std"]) == (3, [0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("vit_base_patch16_224", {"reg_tokens": 4}, "has register tokens"),
        ("vit_base_patch16_224", {"class_token": False, "global_pool": "avg"}, "no class token"),
        ("deit3_base_patch16_224", {}, "has no class token with a position"),
        ("vit_base_patch16_224", {"init_values": 1e-5}, "has layer scale"),
        ("vit_base_patch16_224", {"qk_norm": True}, "has norms of queries and keys"),
        ("vit_base_patch16_224", {"pre_norm": True}, "has a norm before its blocks"),
        ("vit_base_patch16_224", {"global_pool": "avg", "fc_norm": True}, "does not end in a norm"),
        ("vit_base_patch16_224", {"proj_bias": False}, "lacks biases"),
        ("vit_base_patch16_224", {"act_layer": "quick_gelu"}, "another MLP"),
        ("vit_base_patch16_224", {"img_size": (32, 16)}, "sees 32x16 pixels in patches of 8x8"),
        (
            "vit_base_patch16_224",
            {"scale_attn_norm": True},
            r"parameter 'blocks.0.attn.norm.weight",
        ),
        ("deit_base_distilled_patch16_224", {}, "no plain VisionTransformer"),
        ("vit_small_patch16_36x1_224", {"block_fn": None}, "no plain VisionTransformer"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(name, changes, reason):
    if "block_fn" in changes:
        changes = {"block_fn": timm.models.vision_transformer.ResPostBlock}
    with pytest.raises(ConfigError, match=rf"{reason}.*--form timm"):
        vit_model_config(encoder(name, "meta", **changes))
