"""A CLIP's image tower and the transformer of timm that it becomes give the same tokens."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from milan_pipeline.encoders.backbone import EncoderParts, assemble
from milan_pipeline.encoders.clip import as_timm, read_clip_encoder
from milan_pipeline.encoders.names import clip_spec
from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.load_by_name import load_visual
from tests.support.clip import (
    TOKEN_TRUNKS,
    folder_of,
    native,
    normalised,
    pixels,
    smaller,
    timm_tower,
)

DEMO = f"local-dir:{Path(__file__).parents[2] / 'workflows' / 'demo' / 'teacher'}"


def transformer(visual):
    """The same tower as timm's."""
    arguments, state = as_timm(visual, "tiny")
    model: Any
    model, _ = assemble(EncoderParts(arguments, state, [0.5] * 3, [0.5] * 3), origin="tiny")
    return model.eval()


def hidden(visual, images_BCHW):
    """The tokens of open_clip's own tower after its final norm, before its projection."""
    return visual.ln_post(visual.transformer(visual._embeds(images_BCHW)))


@torch.no_grad()
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ls_init_value": 0.1},
        {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        {"norm_kwargs": {"eps": 1e-6}},
        {"mlp_ratio": 48 / 11},
        {"image_size": (32, 48)},
    ],
)
def test_native_towers_keep_their_tokens(quick_gelu, change):
    visual = native(quick_gelu=quick_gelu, **change)
    images_BCHW = torch.randn(3, 3, *visual.image_size)
    expected_BNE = hidden(visual, images_BCHW)
    found_BNE = transformer(visual).forward_features(images_BCHW)
    torch.testing.assert_close(found_BNE, expected_BNE, rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_activation_is_not_taken_for_another():
    found = [
        transformer(native(**change)).forward_features(normalised(pixels()))
        for change in ({}, {"quick_gelu": True}, {"act_kwargs": {"approximate": "tanh"}})
    ]
    assert not torch.allclose(found[0], found[1], atol=1e-4)
    assert not torch.equal(found[0], found[2])


@torch.no_grad()
def test_the_demos_teacher_keeps_its_tokens():
    visual: Any = load_visual(clip_spec(DEMO))
    parts = read_clip_encoder(DEMO)
    model: Any
    model, _ = assemble(parts, origin=DEMO)
    images_BCHW = torch.randn(2, 3, *visual.image_size)
    torch.testing.assert_close(
        model.eval().forward_features(images_BCHW), hidden(visual, images_BCHW), rtol=0, atol=1e-5
    )
    own: Any = visual.preprocess_cfg
    assert (parts.mean, parts.std) == (list(own["mean"]), list(own["std"]))


@torch.no_grad()
@pytest.mark.parametrize("family", TOKEN_TRUNKS)
def test_timms_towers_are_taken_out_as_they_are(family):
    with smaller(family):
        visual = timm_tower(family)
        model = transformer(visual)
    trunk = visual.trunk
    images_BCHW = torch.randn(2, 3, *trunk.patch_embed.img_size)
    expected_BNE = trunk.fc_norm(trunk.forward_features(images_BCHW))
    assert torch.equal(model.forward_features(images_BCHW), expected_BNE)


def test_weights_are_read_only_where_they_are_wanted(tmp_path):
    spec = folder_of("native", tmp_path)
    read = read_clip_encoder(spec)
    (tmp_path / "open_clip_model.safetensors").unlink()
    drawn = read_clip_encoder(spec, random_init=True)
    assert drawn.state is None
    assert drawn.arguments == read.arguments
    assert (drawn.mean, drawn.std) == (read.mean, read.std) == ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    with pytest.raises(ConfigError, match="has no weights beside"):
        read_clip_encoder(spec)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attentional_pool": True}, "norms what it has pooled by attention"),
        ({"qk_norm": True}, "attention blocks of open_clip's own"),
        ({"norm_kwargs": {"eps": 1e-3}}, "the epsilon 0.001"),
    ],
)
def test_what_timm_does_not_have_is_named(change, reason):
    with pytest.raises(ConfigError, match=reason):
        as_timm(native(**change), "tiny")


def test_an_activation_that_timm_does_not_have_is_named():
    visual = native()
    visual.transformer.resblocks[0].mlp.gelu = torch.nn.Tanh()
    with pytest.raises(ConfigError, match="the activation Tanh"):
        as_timm(visual, "tiny")


@pytest.mark.parametrize("family", ["convnext", "resnet"])
def test_towers_without_tokens_are_refused(family):
    with smaller(family):
        visual = timm_tower(family)
        with pytest.raises(ConfigError, match="no token for each patch"):
            as_timm(visual, "tiny")


def test_other_towers_are_refused():
    with pytest.raises(ConfigError, match="is a Linear, which no transformer of timm expresses"):
        as_timm(torch.nn.Linear(1, 1), "tiny")


def test_the_arguments_make_the_architecture_again():
    visual = native(mlp_ratio=2.5, quick_gelu=True)
    arguments, state = as_timm(visual, "tiny")
    model: Any = timm.create_model(**arguments)
    assert model.blocks[0].mlp.fc1.out_features == 80
    assert model.patch_embed.img_size == (32, 32)
    kept = {name for name in state if not name.startswith("head.")}
    assert kept == set(model.state_dict())
