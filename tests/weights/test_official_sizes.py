"""The sizes of a student, read off its weights."""

import pytest
import torch

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.weights.official import DecoderSizes, OfficialSizes, sizes_of
from tests.support.students import encoder_only, official_weights

ENCODER = OfficialSizes(patch_size=16, side=4, width=48, depth=3, decoder=None)


def test_sizes_are_those_of_the_recorded_student():
    found = sizes_of(official_weights())
    target_width = len(official_weights()["decoder_pred.weight"])
    assert found.decoder == DecoderSizes(width=32, depth=2, target_width=target_width)
    assert (found.patch_size, found.side, found.width, found.depth) == (16, 4, 48, 3)
    assert found.image_size == 64


def test_an_encoder_alone_is_told_by_its_names():
    assert sizes_of(encoder_only(official_weights())) == ENCODER


def test_positions_of_no_square_are_refused():
    weights = official_weights() | {"pos_embed": torch.zeros(1, 1 + 12, 48)}
    with pytest.raises(ConfigError, match="12 patches beside CLS, which is no square"):
        sizes_of(weights)


@pytest.mark.parametrize("name", ["pos_embed", "cls_token", "mask_token", "decoder_pred.weight"])
def test_a_tensor_that_tells_a_size_is_named_where_it_is_missing_or_flat(name):
    weights = official_weights()
    with pytest.raises(MismatchError, match=rf"needs {name} .* has it in shape \(7,\)"):
        sizes_of(weights | {name: torch.zeros(7)})
    del weights[name]
    with pytest.raises(MismatchError, match=f"^x.pth needs {name} .* lacks it"):
        sizes_of(weights, what="x.pth")
