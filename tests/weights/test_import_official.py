"""What shapes do not tell is taken from timm's models or asked for."""

from typing import Any

import pytest
import timm
import torch

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.weights.import_official import STOCK, build_imported, choose_architecture
from milan_pipeline.weights.official import DecoderSizes, OfficialSizes, sizes_of
from tests.support.students import encoder_only, official_weights

TINY = sizes_of(official_weights())
NOTHING: dict[str, Any] = {"name": None, "heads": None, "decoder_heads": None}


def sizes(patch_size, width, depth, decoder=None):
    return OfficialSizes(patch_size=patch_size, side=16, width=width, depth=depth, decoder=decoder)


@pytest.mark.parametrize("name", STOCK)
def test_sizes_with_a_name_are_what_timm_builds_by_it(name):
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
    patch_size, width, depth, heads = STOCK[name]
    assert model.patch_embed.patch_size == (patch_size, patch_size)
    assert (model.embed_dim, len(model.blocks)) == (width, depth)
    assert model.blocks[0].attn.num_heads == heads
    found = choose_architecture(sizes(patch_size, width, depth), **NOTHING)
    assert (found.name, found.heads) == (name, heads)
    none = dict.fromkeys(("patch_size", "width", "depth", "heads"))
    assert found.encoder == {"name": name, "image_size": 16 * patch_size, **none}


def test_other_sizes_change_those_of_the_base_model():
    decoder = DecoderSizes(width=96, depth=1, target_width=8)
    found = choose_architecture(sizes(16, 128, 2, decoder), **NOTHING)
    assert found.encoder == {
        "name": "vit_base_patch16_224",
        "image_size": 256,
        "patch_size": 16,
        "width": 128,
        "depth": 2,
        "heads": 2,
    }
    assert (found.record["student"], found.record["decoder_heads"]) == ("vit_base_patch16_224", 16)


def test_heads_that_are_given_win_over_the_name():
    found = choose_architecture(sizes(16, 768, 12), **(NOTHING | {"heads": 8}))
    assert (found.name, found.encoder["heads"], found.encoder["width"]) == (
        "vit_base_patch16_224", 8, 768,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "width of 48 does not divide into heads of 64.*--heads"),
        ({"heads": 5}, "--heads 5 does not divide the width 48"),
        ({"heads": 4, "decoder_heads": 5}, "--decoder-heads 5 does not divide the width 32"),
    ],
)
def test_heads_that_do_not_divide_the_width_are_refused(given, reason):
    with pytest.raises(ConfigError, match=reason):
        choose_architecture(TINY, **(NOTHING | given))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.pop("norm.bias"), r"lacks norm\.bias;"),
        (lambda w: w.update(head=torch.ones(1)), "has the unknown head;"),
        (
            lambda w: w.update({"blocks.1.mlp.fc1.bias": torch.ones(7)}),
            r"has blocks\.1\.mlp\.fc1\.bias of shape \(7,\) where \(192,\) is needed;",
        ),
        (
            lambda w: [w.pop(name) for name in list(w) if name.startswith("blocks.1.")],
            r"lacks blocks\.1\.\S+, .* and 9 more and has the unknown blocks\.2\.",
        ),
    ],
    ids=["missing", "extra", "shape", "gap"],
)
@pytest.mark.parametrize("part", [dict, encoder_only], ids=["whole", "encoder"])
def test_weights_that_are_not_the_students_are_refused_by_name(change, reason, part):
    weights = part(official_weights())
    change(weights)
    given: dict[str, Any] = {"name": None, "heads": 4, "decoder_heads": 4}
    with pytest.raises(MismatchError, match=reason):
        build_imported(choose_architecture(sizes_of(weights), **given), weights)


def test_building_leaves_the_random_state_alone_and_positions_as_they_are():
    weights = official_weights()
    weights["pos_embed"] = torch.randn_like(weights["pos_embed"])
    architecture = choose_architecture(TINY, name=None, heads=4, decoder_heads=4)
    before = torch.get_rng_state()
    found = build_imported(architecture, weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.student is not None
    assert torch.equal(found.student.encoder.state_dict()["pos_embed"], weights["pos_embed"])
    assert not dict(found.student.named_parameters())["encoder.pos_embed"].requires_grad
