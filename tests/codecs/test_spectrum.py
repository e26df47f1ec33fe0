"""Spectra, water-filling and the Gaussian bound against what can be computed by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.codecs.spectrum import directions, fill_water, gaussian_bound, spectrum_of

VARIANCES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12).map(np.array)


def test_directions_have_length_one_whatever_their_size() -> None:
    plain = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert torch.allclose(directions(plain), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    for size in (1e-38, 1e37):
        assert torch.allclose(directions(plain * size), directions(plain), rtol=1e-5)


def test_components_are_those_of_the_covariance() -> None:
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(4, 4)))[0]
    vectors = random.normal(size=(4000, 4)) * [3, 2, 1, 0.5] @ rotation + 7
    mean, variance, component = spectrum_of(vectors.astype(np.float32))
    np.testing.assert_allclose(mean, vectors.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, [9, 4, 1, 0.25], rtol=0.1)
    np.testing.assert_allclose(component @ component.T, np.eye(4), atol=1e-9)
    covariance = np.cov(vectors.T, bias=True)
    np.testing.assert_allclose(covariance, component.T * variance @ component, atol=1e-4)


def test_water_by_hand() -> None:
    # Level 1: half a bit for each doubling of the variance above it.
    np.testing.assert_allclose(
        fill_water(np.array([16.0, 4.0, 1.0, 0.1]), 3), [2, 1, 0, 0], atol=1e-9
    )
    assert fill_water(np.zeros(3), 8).tolist() == [0, 0, 0]


def test_the_bound_by_hand() -> None:
    # Error 1 in each of two components and 0.1 in the last: 2 bits and 1 bit.
    bits, coded = gaussian_bound(np.array([16.0, 4.0, 0.1]), 2.1)
    assert bits == pytest.approx(3)
    assert coded == 2
    assert gaussian_bound(np.array([1.0, 1.0]), 2.0) == (0, 0)
    assert gaussian_bound(np.array([1.0, 1.0]), 3.0) == (0, 0)


@settings(deadline=None, derandomize=True)
@given(VARIANCES, st.floats(0.1, 100))
def test_the_bound_undoes_water_filling(variance: np.ndarray, bits: float) -> None:
    shared = fill_water(variance, bits)
    assert shared.sum() == pytest.approx(bits, rel=1e-6)
    distortion = float((variance * 4.0**-shared).sum())
    assert gaussian_bound(variance, distortion)[0] == pytest.approx(bits, rel=1e-3, abs=1e-3)
