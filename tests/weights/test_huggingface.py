"""A timm model as transformers has it: names, split qkv, heads, and what cannot be expressed."""

import importlib
import json
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.evaluation_view import evaluation_view
from milan_pipeline.weights.export import ClassHead, timm_files
from milan_pipeline.weights.huggingface import (
    huggingface_files,
    preprocessor_config,
    vit_model_config,
    vit_model_state,
)
from tests.support.students import NAME, merged, perturbed

GREY = {"mean": [0.5] * 3, "std": [0.25] * 3}
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


@pytest.mark.parametrize("licence", [{}, {"teacher_license": "cc-by-nc-4.0"}])
def test_the_licence_of_the_teacher_is_told(licence):
    description = {"timm": {"model_name": NAME, **SMALL}, **GREY, **licence}
    config = json.loads(timm_files(encoder(), description)["config.json"])
    assert config.get("teacher_license") == licence.get("teacher_license")
    assert "license" not in config["pretrained_cfg"]
    config = json.loads(huggingface_files(encoder(), description)["config.json"])
    assert config.get("teacher_license") == licence.get("teacher_license")


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


CLASSES = ClassHead(outputs=3, names=("ant", "bee", "an owl"), crop_pct=0.8)


def classifier(pool, **changes):
    """A tiny classifier whose every weight was moved, its description and its head."""
    arguments = {"model_name": NAME, "global_pool": pool, "num_classes": 3, **SMALL, **changes}
    torch.manual_seed(0)
    model: Any = perturbed(timm.create_model(**arguments)).eval()
    return model, {"timm": arguments, **GREY}


def written(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize(
    ("pool", "bias", "kind"),
    [
        ("token", True, "ViTForImageClassification"),
        ("avg", True, "BeitForImageClassification"),
        ("avg", False, "BeitForImageClassification"),
    ],
)
def test_transformers_loads_all_of_a_classifier_and_computes_the_same(pool, bias, kind, tmp_path):
    transformers: Any = importlib.import_module("transformers")  # seconds to import and to type
    model, description = classifier(pool, qkv_bias=bias)
    folder = written(tmp_path, huggingface_files(model, description, CLASSES))
    loaded, report = transformers.AutoModelForImageClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert type(loaded).__name__ == kind
    assert not any(report.values()), report
    assert loaded.config.id2label == {0: "ant", 1: "bee", 2: "an owl"}
    assert loaded.config.label2id["an owl"] == 2
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(x).logits, model(x), atol=1e-5, rtol=0)


def test_transformers_cuts_the_view_that_was_scored(tmp_path):
    transformers: Any = importlib.import_module("transformers")
    model, description = classifier("token")
    folder = written(tmp_path, huggingface_files(model, description, CLASSES))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    image = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    view_CSS = evaluation_view(32, 0.8)(image).float()
    given = processor(image, return_tensors="pt").pixel_values[0]
    found_CSS = (given * 0.25 + 0.5) * 255
    assert found_CSS.shape == view_CSS.shape
    # Two programs resize it, and round.
    assert (found_CSS - view_CSS).abs().max() <= 2


def test_outputs_without_names_are_numbered():
    model, description = classifier("token")
    files = huggingface_files(model, description, ClassHead(outputs=3, names=(), crop_pct=1.0))
    assert json.loads(files["config.json"])["id2label"]["2"] == "class 2"


@pytest.mark.parametrize(
    ("pool", "changes", "reason"),
    [
        ("avg", {"fc_norm": False}, "no plain VisionTransformer"),
        ("avgmax", {}, "no plain VisionTransformer"),
        ("token", {"init_values": 1e-5}, "layer scale"),
    ],
)
def test_a_classifier_that_cannot_be_expressed_is_refused(pool, changes, reason):
    model, description = classifier(pool, **changes)
    with pytest.raises(ConfigError, match=rf"{reason}.*--form timm"):
        huggingface_files(model, description, CLASSES)
