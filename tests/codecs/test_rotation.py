"""The codec without a fit: what theory says of it, and the same bytes everywhere."""

import hashlib
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.codecs.build import codec_of, make_codec
from milan_pipeline.codecs.rotation import (
    POSITIVE_LEVELS,
    hadamard,
    packed,
    rotated,
    signs,
    unit_length,
    unpacked,
)
from milan_pipeline.errors import DataError

THEORY = {1: 0.79788, 2: 0.93996, 3: 0.98258, 4: 0.99524}
"""sqrt(1 - D) for the distortions D of Lloyd and Max's quantisers of a Gaussian (Max, table I)."""


def gaussian(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def falling(count: int, width: int) -> torch.Tensor:
    return gaussian(count, width) * torch.arange(1, width + 1).rsqrt()


def with_an_outlier(count: int, width: int) -> torch.Tensor:
    """One channel has 42% of the variance, as some vision transformers have."""
    tokens = gaussian(count, width)
    tokens[:, width // 3] *= math.sqrt(0.42 / 0.58 * (width - 1))
    return tokens


def with_a_mean(count: int, width: int) -> torch.Tensor:
    """A common mean, as long as what differs."""
    return gaussian(count, width) + gaussian(1, width).flip(1)


@pytest.mark.parametrize("bits", THEORY)
@pytest.mark.parametrize("width", [128, 320, 768])
@pytest.mark.parametrize("targets", [gaussian, falling, with_an_outlier, with_a_mean])
def test_cosines_are_those_of_theory(
    targets: Callable[[int, int], torch.Tensor], width: int, bits: int
) -> None:
    tokens = targets(600, width)
    codec = make_codec(f"rotation:bits={bits}")
    encoded = codec.encode(tokens[None])
    assert encoded.codes_nNC.shape == (1, *codec.spec.code_shape(600, width))
    assert encoded.codes_nNC.shape[-1] == bits * width // 8
    decoded = codec.decode(*encoded)[0]
    cosine = torch.cosine_similarity(decoded, tokens, dim=-1).mean()
    assert float(cosine) == pytest.approx(THEORY[bits], abs=0.003)


@pytest.mark.parametrize("bits", POSITIVE_LEVELS)
def test_levels_are_the_means_of_their_cells(bits: int) -> None:
    """Lloyd and Max's condition, for a Gaussian; borders lie between levels."""
    level, gauss = np.array(POSITIVE_LEVELS[bits]), NormalDist()
    border = np.concatenate([[0], (level[1:] + level[:-1]) / 2, [40]])
    density, below = ([f(x) for x in border] for f in (gauss.pdf, gauss.cdf))
    np.testing.assert_allclose(level, -np.diff(density) / np.diff(below), atol=2e-6)


@pytest.mark.parametrize("width", [8, 24, 96, 128])
def test_the_rotation_keeps_lengths_and_can_be_undone(width: int) -> None:
    tokens = gaussian(50, width)
    turned = rotated(tokens.T.contiguous(), signs(width)).T
    torch.testing.assert_close(turned.norm(dim=-1), tokens.norm(dim=-1))
    matrix = rotated(torch.eye(width), signs(width))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned @ matrix, tokens, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(turned, tokens, atol=0.1)


def test_hadamard_is_the_matrix_of_sylvester() -> None:
    two = np.array([[1, 1], [1, -1]])
    eight = np.kron(np.kron(two, two), two) / math.sqrt(8)
    np.testing.assert_allclose(hadamard(torch.eye(8)).numpy(), eight, atol=1e-6)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 5), st.integers(0, 1000))
def test_indices_are_packed_without_gaps(bits: int, tokens: int, groups: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 2**bits, (tokens, 8 * groups))
    codes = packed(torch.from_numpy(drawn), bits)
    assert codes.shape == (tokens, bits * groups)
    assert codes.dtype == torch.uint8
    stream = np.unpackbits(codes.numpy(), axis=-1, bitorder="little")
    each = stream.reshape(tokens, 8 * groups, bits) @ (1 << np.arange(bits))
    np.testing.assert_array_equal(each, drawn)
    np.testing.assert_array_equal(unpacked(codes, bits).numpy(), drawn)


def of_integers() -> torch.Tensor:
    """Tokens (5, 40, 96) that any machine computes alike."""
    return ((torch.arange(5 * 40 * 96) * 7919 % 10007) - 5003.0).reshape(5, 40, 96)


@pytest.mark.parametrize(
    ("bits", "digest"),
    [(1, "71ad21f530be8ee0"), (2, "716eaf3ce221369b"),
     (3, "797dbdfb7ff20bf8"), (4, "de2a836f4d91d6da")],
)  # fmt: skip
def test_the_same_bytes_on_every_machine_and_alone(bits: int, digest: str) -> None:
    codec = make_codec(f"rotation:bits={bits}")
    codes = codec.encode(of_integers()).codes_nNC
    assert hashlib.sha256(codes.numpy().tobytes()).hexdigest()[:16] == digest
    alone = torch.cat([codec.encode(one[None]).codes_nNC for one in of_integers()])
    assert torch.equal(alone, codes)


def test_the_order_of_a_sum_does_not_depend_on_what_is_beside_it() -> None:
    tokens = gaussian(64, 768)
    assert torch.equal(unit_length(tokens)[:3], unit_length(tokens[:3]))
    assert torch.equal(unit_length(torch.zeros(2, 8)), torch.zeros(2, 8))
    torch.testing.assert_close(unit_length(tokens), torch.nn.functional.normalize(tokens, dim=-1))


def test_edge_cases() -> None:
    codec = make_codec("rotation:bits=4")
    assert codec.encode(torch.zeros(0, 3, 16)).codes_nNC.shape == (0, 3, 8)
    assert codec.decode(torch.zeros(0, 3, 8, dtype=torch.uint8), None).shape == (0, 3, 16)
    assert codec.decode(*codec.encode(torch.zeros(1, 2, 16))).isfinite().all()
    tiny = gaussian(4, 16)[None]
    for scale in (1e-30, 1e30):
        assert torch.equal(codec.encode(tiny * scale).codes_nNC, codec.encode(tiny).codes_nNC)
    with pytest.raises(DataError, match="not finite"):
        codec.encode(torch.full((1, 2, 16), torch.nan))


def test_an_identity_rebuilds_it() -> None:
    codec = make_codec("rotation:bits=3")
    assert codec.parameters() == {"name": "rotation", "version": 1, "bits": 3, "prior": "log8"}
    codes = codec.encode(of_integers())
    assert torch.equal(codec_of(codec.parameters()).decode(*codes), codec.decode(*codes))
