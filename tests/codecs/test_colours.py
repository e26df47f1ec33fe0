"""Tokens as colours: by the components with the most variance, between 0 and 1."""

import numpy as np
import pytest
from numpy.typing import NDArray

from milan_pipeline.codecs.colours import TokenColours


def tokens_of(count: int, width: int) -> NDArray[np.float32]:
    random = np.random.Generator(np.random.PCG64(0))
    deviation = np.array([9.0, 5.0, 2.0, *[0.1] * (width - 3)])
    return random.standard_normal((count, width), np.float32) * deviation.astype(np.float32)


def test_colours_follow_the_components_with_the_most_variance() -> None:
    tokens = tokens_of(4000, 6)
    found = TokenColours(tokens)(tokens)
    assert found.shape == (4000, 3)
    for channel in range(3):
        correlation = np.corrcoef(found[:, channel], tokens[:, channel])[0, 1]
        assert abs(correlation) > 0.95


def test_96_percent_are_within_the_range_and_the_rest_is_clipped() -> None:
    tokens = tokens_of(1000, 4)
    colours = TokenColours(tokens)
    found = colours(tokens)
    assert found.min() == 0
    assert found.max() == 1
    for channel in range(3):
        assert (found[:, channel] == 0).mean() == pytest.approx(0.02, abs=0.001)
        assert (found[:, channel] == 1).mean() == pytest.approx(0.02, abs=0.001)
    assert np.isin(colours(1000 * tokens[:1]), (0, 1)).all()


def test_any_leading_shape() -> None:
    tokens = tokens_of(60, 5)
    colours = TokenColours(tokens)
    shaped = colours(tokens.reshape(3, 4, 5, 5))
    assert np.array_equal(shaped.reshape(60, 3), colours(tokens))


def test_tokens_that_are_alike() -> None:
    tokens = tokens_of(50, 4)
    tokens[:, 1:] = 0
    found = TokenColours(tokens)(tokens)
    assert np.isfinite(found).all()
