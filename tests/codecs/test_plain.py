"""Codecs: round trips within their error bound, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from milan_pipeline.codecs.build import codec_of, make_codec
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.plain import CPU_BLOCK
from milan_pipeline.codecs.registry import PLAIN
from milan_pipeline.errors import ConfigError, DataError

SHAPES = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=4)
COMPONENTS = st.floats(-60000, 60000, width=32)


def tokens_of(components: st.SearchStrategy[float]) -> st.SearchStrategy[Tensor]:
    shaped = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=components))
    return shaped.map(torch.from_numpy)


@settings(deadline=None, derandomize=True)
@given(tokens_of(COMPONENTS))
def test_float16_rounds_to_half_precision(tokens: Tensor) -> None:
    codec = make_codec("float16")
    codes, scale = codec.encode(tokens)
    assert scale is None
    assert codes.numpy().dtype == codec.spec.dtype
    decoded = codec.decode(codes, scale)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, tokens.half().float())
    assert torch.equal(codec.encode(decoded).codes_nNC, codes)


@settings(deadline=None, derandomize=True)
@given(tokens_of(COMPONENTS | st.floats(-(2**-13), 2**-13, width=32)))
def test_int8_keeps_its_error_bound(tokens: Tensor) -> None:
    codec = make_codec("int8")
    codes, scale = codec.encode(tokens)
    assert scale is not None
    assert codes.numpy().dtype == codec.spec.dtype
    assert scale.dtype == torch.float16
    assert codes.abs().max() <= 127
    error = (codec.decode(codes, scale) - tokens).abs().double()
    largest = tokens.abs().amax(-1, keepdim=True).double()
    # Half a step, and what rounding the scale to half precision (or to nothing) adds.
    half_step = largest / 127 / 2
    assert bool((error <= 1.001 * half_step + largest * 2**-11 + 127 * 2**-24).all())


@pytest.mark.parametrize("name", PLAIN)
def test_edge_cases(name: str) -> None:
    codec = make_codec(name)
    zeros = torch.zeros(1, 3, 5)
    assert torch.equal(codec.decode(*codec.encode(zeros)), zeros)
    codes, scale = codec.encode(torch.zeros(0, 3, 5))
    assert codes.shape == (0, *codec.spec.code_shape(3, 5))
    assert (scale is not None) == codec.spec.has_scale
    # A token does not touch the scale of its neighbours.
    mixed = torch.stack([torch.full((1, 4), 1e-3), torch.full((1, 4), 3e4)], dim=1)[0][None]
    assert torch.allclose(codec.decode(*codec.encode(mixed)), mixed, rtol=2e-3)


@pytest.mark.parametrize("name", PLAIN)
def test_one_sample_is_encoded_as_in_a_batch(name: str) -> None:
    codec = make_codec(name)
    tokens = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    together = codec.encode(tokens)
    for number in range(5):
        alone = codec.encode(tokens[number : number + 1])
        assert torch.equal(alone.codes_nNC[0], together.codes_nNC[number])
        if alone.scale_nN is not None and together.scale_nN is not None:
            assert torch.equal(alone.scale_nN[0], together.scale_nN[number])


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3.4e38])
def test_what_cannot_be_stored_is_refused(name: str, value: float) -> None:
    tokens = torch.ones(2, 3, 4)
    tokens[1, 2, 3] = value
    with pytest.raises(DataError, match="not finite or too large"):
        make_codec(name).encode(tokens)


def test_the_largest_values() -> None:
    for name, largest in (("float16", 65504.0), ("int8", 65504.0 * 127)):
        codec = make_codec(name)
        tokens = torch.full((1, 1, 2), largest)
        assert torch.allclose(codec.decode(*codec.encode(tokens)), tokens)
        with pytest.raises(DataError):
            codec.encode(tokens * 1.01)


def test_int8_needs_its_scale() -> None:
    with pytest.raises(DataError, match="need their scale"):
        make_codec("int8").decode(torch.zeros(1, 1, 1, dtype=torch.int8), None)


def test_codecs_are_rebuilt_from_their_parameters() -> None:
    for name in PLAIN:
        codec: Codec = make_codec(name)
        assert codec_of(codec.parameters()).parameters() == codec.parameters()


@pytest.mark.parametrize(
    "parameters", [{}, {"name": "pq"}, {"name": "int8", "bits": 4}, {"name": ["int8"]}]
)
def test_unknown_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="this version does not know"):
        codec_of(parameters)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="--codec 'float8' is unknown; choose one of float16"):
        make_codec("float8")


def plain_int8(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, without blocks and without scratch."""
    scale = (tokens.abs().amax(-1) / 127).half()
    divisor = scale.float()[..., None]
    codes = torch.where(divisor > 0, tokens / divisor, 0.0).round().clamp(-127, 127)
    return codes.to(torch.int8), scale


@pytest.mark.parametrize("count", [0, 1, CPU_BLOCK - 1, CPU_BLOCK, 2 * CPU_BLOCK + 1])
@pytest.mark.parametrize("size", [1.0, 1e-4, 3e-6, 1e-7, 1e5])
def test_int8_in_blocks_is_int8_at_once(count: int, size: float) -> None:
    random = torch.Generator().manual_seed(count)
    tokens = size * torch.randn(count, 7, 24, generator=random)
    tokens[:, 3] = 0
    found = make_codec("int8").encode(tokens)
    codes, scale = plain_int8(tokens)
    assert torch.equal(found.codes_nNC, codes)
    assert found.scale_nN is not None
    assert torch.equal(found.scale_nN, scale)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3.4e38])
def test_the_verdict_is_on_single_samples(name: str, value: float) -> None:
    codec = make_codec(name)
    tokens = torch.randn(9, 3, 4, generator=torch.Generator().manual_seed(0))
    sound = codec.encode(tokens)
    tokens[6, 2, 3] = value
    encoded, fits = codec.try_encode(tokens)
    assert fits.tolist() == [number != 6 for number in range(9)]
    for number in range(9):
        if number != 6:
            assert torch.equal(encoded.codes_nNC[number], sound.codes_nNC[number])


@pytest.mark.parametrize("name", PLAIN)
def test_half_precision_tokens_are_encoded_as_floats(name: str) -> None:
    codec = make_codec(name)
    tokens = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, plain = codec.encode(tokens), codec.encode(tokens.float())
    assert torch.equal(ours.codes_nNC, plain.codes_nNC)
    if ours.scale_nN is not None and plain.scale_nN is not None:
        assert torch.equal(ours.scale_nN, plain.scale_nN)
