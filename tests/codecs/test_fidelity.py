"""Cosines of all channels, and of those beside the largest, which can hide their loss."""

import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fidelity import cosines_of


def test_the_largest_channel_of_each_sample_is_left_out() -> None:
    before = torch.tensor([[[9.0, 1, 0], [9, 0, 1]], [[0, 1, 9], [1, 0, 9]]])
    after = torch.tensor([[[9.0, 1, 0], [9, 1, 0]], [[0, 1, 9], [0, 1, 9]]])
    cosines = cosines_of(before, after)
    assert cosines.rest_nN.tolist() == [[1, 0], [1, 0]]
    assert cosines.all_nN[:, 0].tolist() == pytest.approx([1, 1])
    assert cosines.all_nN[:, 1].tolist() == pytest.approx([81 / 82, 81 / 82])


def test_it_is_the_largest_of_directions_and_not_of_one_long_token() -> None:
    tokens = torch.tensor([[[0.0, 1e6], [1, 0], [1, 0]]])
    turned = torch.tensor([[[0.0, 1e6], [0, 1], [0, 1]]])
    assert cosines_of(tokens, turned).rest_nN.tolist() == [[1, 0, 0]]


def test_a_loss_that_the_mean_cosine_hides_is_seen() -> None:
    """One channel has nearly all of the energy, so that few levels are left for the others."""
    tokens = torch.randn(1, 500, 64, generator=torch.Generator().manual_seed(0))
    tokens[..., 5] = 100
    codec = make_codec("int8")
    cosines = cosines_of(tokens, codec.decode(*codec.encode(tokens)))
    assert cosines.all_nN.mean() > 0.9997
    assert cosines.rest_nN.mean() < 0.98
