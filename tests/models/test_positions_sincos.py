"""The fixed positions, against the formula and another construction."""

import numpy as np
import pytest
import torch

from benchmarks.plain_milan import PlainMilan
from milan_pipeline.errors import ConfigError
from milan_pipeline.models.positions import sincos_positions


def test_positions_of_an_oblong_grid_encode_column_then_row():
    table = sincos_positions((2, 3), 8)[0]
    assert table.shape == (7, 8)
    assert (table[0] == 0).all()
    row, column = 1, 2
    angles = {axis: at * np.array([1.0, 10000**-0.5]) for axis, at in (("x", column), ("y", row))}
    expected = [np.sin(angles["x"]), np.cos(angles["x"]), np.sin(angles["y"]), np.cos(angles["y"])]
    np.testing.assert_allclose(table[1 + row * 3 + column], np.concatenate(expected), rtol=1e-6)


def test_positions_are_those_of_the_plain_implementation():
    plain = PlainMilan(
        image_size=(64, 96), patch_size=16, target_width=8, width=48, depth=1, heads=2,
        decoder_width=32, decoder_depth=1, decoder_heads=2,
    )  # fmt: skip
    assert torch.equal(sincos_positions((4, 6), 48), plain.pos_embed)
    assert torch.equal(sincos_positions((4, 6), 32), plain.decoder_pos_embed)


def test_a_width_that_cannot_hold_positions_is_refused():
    with pytest.raises(ConfigError, match=r"width of 10 .* multiple of 4"):
        sincos_positions((2, 3), 10)
