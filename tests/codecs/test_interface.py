"""Priors in a byte: never zero, within a factor of 2^(1/16)."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.codecs.interface import LARGEST_FACTOR, decode_prior, encode_prior


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_round_trip(values: list[float]) -> None:
    prior = np.array([values], np.float32)
    codes = encode_prior(torch.from_numpy(prior)).numpy()
    assert codes.dtype == np.uint8
    decoded = decode_prior(codes)
    assert decoded.dtype == np.float32
    assert (decoded > 0).all()
    near = prior > 2.0**-31
    ratio = decoded[near] / prior[near]
    assert (ratio <= LARGEST_FACTOR * 1.0001).all()
    assert (ratio >= 1 / LARGEST_FACTOR / 1.0001).all()
    assert (decoded[~near] < 2.0**-30).all()


def test_codes_are_eighths_of_octaves() -> None:
    prior = torch.tensor([[1.0, 0.5, 0.25, 2**-0.125, 0.0, 1e-30]])
    assert encode_prior(prior).tolist() == [[0, 8, 16, 1, 255, 255]]


def test_float_priors_come_back_as_they_are_but_never_zero() -> None:
    prior = np.array([0.25, 0.0, 1e-20], np.float32)
    decoded = decode_prior(prior)
    assert decoded[[0, 2]].tolist() == prior[[0, 2]].tolist()
    assert decoded[1] > 0
