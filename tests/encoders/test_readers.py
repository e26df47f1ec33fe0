"""Encoders by timm's names, pretrained and random; no test asks the network."""

import re
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import _builder

from milan_pipeline.encoders.backbone import assemble
from milan_pipeline.encoders.load import fingerprint, image_size_of, load_encoder
from milan_pipeline.encoders.readers import random_weights, read_timm_encoder
from milan_pipeline.errors import ConfigError, MissingDataError

PRETRAINED = "test_vit2.r160_in1k"  # it norms what it has pooled, and has a head


@pytest.fixture
def published(monkeypatch):
    """Put a model where timm would download it from; return it."""
    torch.manual_seed(5)
    model: Any = timm.create_model("test_vit2").eval()
    with torch.no_grad():
        model.fc_norm.weight.normal_()
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *_, **__: model.state_dict())
    return model


@torch.no_grad()
def test_a_tag_is_pretrained(published):
    parts = read_timm_encoder(PRETRAINED)
    model: Any
    model, arguments = assemble(parts, origin=PRETRAINED)
    images_BCHW = torch.randn(2, 3, 160, 160)
    expected_BNE = published.fc_norm(published.forward_features(images_BCHW))
    torch.testing.assert_close(
        model.eval().forward_features(images_BCHW), expected_BNE, rtol=0, atol=1e-5
    )
    assert arguments["model_name"] == "test_vit2"
    assert parts.mean == list(published.pretrained_cfg["mean"])


def test_random_weights_are_not_fetched(monkeypatch):
    def fetch(*_, **__):
        pytest.fail("asked the network")

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", fetch)
    assert read_timm_encoder("test_vit2").state is None
    assert read_timm_encoder(PRETRAINED, random_init=True).state is None
    image_size_of(f"timm:{PRETRAINED}")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("timm:test_vit2", f"its weights are random; trained are timm:{PRETRAINED}"),
        ("vit_tiny_patch16_clip_224", "has no tag, so its weights are random$"),
        (PRETRAINED, None),
        ("runs/first", None),
        ("pixels", None),
    ],
)
def test_random_weights_that_nobody_asked_for_are_said(spec, said):
    assert re.search(said or "^$", random_weights(spec) or "")


def test_without_a_network_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"cannot be loaded .* connect to the network once .* or leave out"
    ):
        read_timm_encoder(PRETRAINED)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nowhere", MissingDataError, "neither a run folder"),
        ("timm:hf-hub:someone/something", MissingDataError, "neither a run folder"),
        ("timm:", MissingDataError, "neither a run folder"),
        ("test_vit.nope", ConfigError, "choose test_vit.r160_in1k"),
        ("vit_tiny_patch16_clip_224.nope", MissingDataError, "neither a run folder"),
        ("vit_medium_patch16_clip_224.nope", ConfigError, "choose"),
        ("resnet18", ConfigError, "no token for each patch"),
        ("swin_tiny_patch4_window7_224", ConfigError, "no token for each patch"),
    ],
)
def test_names_that_are_no_encoder(name, error, says):
    with pytest.raises(error, match=says):
        load_encoder(name)
    with pytest.raises(error, match=says):
        image_size_of(name)


@pytest.mark.parametrize(
    ("files", "spec", "says"),
    [
        (["open_clip_config.json"], "", "is a CLIP of open_clip; give --encoder open_clip:local-"),
        (["config.json", "model.safetensors"], "", "the run folder that it was exported from"),
        (["config.json", "model.safetensors"], "/model.safetensors", "that it was exported from"),
        (["a.safetensors"], "/a.safetensors", r"`milan-pipeline import-checkpoint \S+/a.safetens"),
        (["a.pth"], "/a.pth", r"a\.pth has no \.json beside it .* import-checkpoint"),
        ([], "/nowhere", "nowhere/encoder.json does not exist; run the command that trained"),
        (["student.safetensors", "sha256.json"], "", "is a checkpoint; give the folder of its run"),
        (["encoder.safetensors", "state.json"], "", "encoder.json does not exist; run the command"),
    ],
)
def test_files_that_are_no_encoder_are_told_apart(files, spec, says, tmp_path):
    for name in files:
        (tmp_path / name).write_text("{}")
    for load in (load_encoder, image_size_of):
        with pytest.raises(MissingDataError, match=says):
            load(f"{tmp_path}{spec}")


@pytest.mark.parametrize("name", ["local-dir:/nowhere", "hf-hub:someone/something"])
def test_a_clip_without_its_prefix_is_told_how_to_be_given(name):
    with pytest.raises(MissingDataError, match=f"give --encoder open_clip:{name}$"):
        load_encoder(name)


def test_what_stands_behind_a_name_is_told_by_it():
    assert fingerprint("timm:test_vit") == "timm:test_vit"
    assert fingerprint("test_vit") == "test_vit"
    assert (
        fingerprint("timm:test_vit.r160_in1k") == f"timm:test_vit.r160_in1k timm {timm.__version__}"
    )
