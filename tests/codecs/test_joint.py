"""Fitted codecs: round trips of any finite input, refusals, one form on every device."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from milan_pipeline.codecs.build import codec_of
from milan_pipeline.codecs.component_arrays import array_shapes, hash_of
from milan_pipeline.codecs.kinds import in_blocks, kind_by_kind
from milan_pipeline.codecs.registry import spec_of
from milan_pipeline.errors import DataError
from tests.support.fitted import FITTED, TOKEN_WIDTH, fitted, sample, tokens

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def any_tokens() -> st.SearchStrategy[Tensor]:
    shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.just(TOKEN_WIDTH))
    shaped = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=FINITE))
    return shaped.map(torch.from_numpy)


@settings(deadline=None, derandomize=True)
@given(st.sampled_from(FITTED), any_tokens())
def test_any_finite_input_comes_back_finite(text: str, given_nND: Tensor) -> None:
    codec = fitted(text)
    codes, scale = codec.encode(given_nND)
    assert scale is None
    assert codes.shape == (*given_nND.shape[:2], codec.spec.code_width(TOKEN_WIDTH))
    assert codes.dtype == torch.uint8
    decoded = codec.decode(codes, scale)
    assert decoded.shape == given_nND.shape
    assert decoded.dtype == torch.float32
    assert bool(decoded.isfinite().all())
    # What was decoded is a point of the codec's own: to code it again costs next to nothing.
    assert torch.cosine_similarity(codec.decode(*codec.encode(decoded)), decoded, -1).min() > 0.6


@settings(deadline=None, derandomize=True)
@given(st.sampled_from(FITTED), st.integers(-120, 120), st.integers(0, 5))
def test_only_the_direction_counts(text: str, exponent: int, seed: int) -> None:
    codec, plain = fitted(text), tokens(7, seed=seed)[None]
    scaled = torch.ldexp(plain, torch.tensor(exponent))
    assert torch.equal(codec.encode(scaled).codes_nNC, codec.encode(plain).codes_nNC)


@pytest.mark.parametrize("text", FITTED)
@pytest.mark.parametrize("largest", [3e38, 1e-38, 1e-44])
def test_extreme_sizes(text: str, largest: float) -> None:
    codec, plain = fitted(text), tokens(5)[None]
    scaled = (plain.double() * largest / plain.abs().max()).float()
    decoded = codec.decode(*codec.encode(scaled))
    assert torch.cosine_similarity(decoded, plain, dim=-1).mean() > (0.9 if largest > 1e-40 else 0)


@pytest.mark.parametrize("text", FITTED)
def test_a_token_without_length_does_not_touch_its_neighbours(text: str) -> None:
    codec, plain = fitted(text), tokens(6).reshape(2, 3, TOKEN_WIDTH)
    mixed = plain.clone()
    mixed[1, 2] = 0
    codes = codec.encode(mixed).codes_nNC
    assert torch.equal(codes.flatten(0, 1)[:5], codec.encode(plain).codes_nNC.flatten(0, 1)[:5])
    assert bool(codec.decode(codes, None).isfinite().all())


@pytest.mark.parametrize("text", FITTED)
def test_no_sample_and_one_sample(text: str) -> None:
    codec, plain = fitted(text), tokens(20).reshape(5, 4, TOKEN_WIDTH)
    assert codec.encode(plain[:0]).codes_nNC.shape == (0, 4, codec.spec.code_width(TOKEN_WIDTH))
    assert codec.decode(codec.encode(plain[:0]).codes_nNC, None).shape == (0, 4, TOKEN_WIDTH)
    together = codec.encode(plain).codes_nNC
    for number in range(5):
        assert torch.equal(codec.encode(plain[number : number + 1]).codes_nNC[0], together[number])


@pytest.mark.parametrize("text", FITTED)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(text: str, value: float) -> None:
    codec, plain = fitted(text), tokens(12).reshape(3, 4, TOKEN_WIDTH)
    broken = plain.clone()
    broken[1, 2, 3] = value
    attempt = codec.try_encode(broken)
    assert attempt.fits_n.tolist() == [True, False, True]
    sound = codec.encode(plain).codes_nNC
    assert torch.equal(attempt.encoded.codes_nNC[attempt.fits_n], sound[attempt.fits_n])
    with pytest.raises(DataError, match="not finite or too large"):
        codec.encode(broken)


@pytest.mark.parametrize("text", FITTED)
def test_decoding_is_the_documented_sum(text: str) -> None:
    codec, given = fitted(text), tokens(9)[None]
    codes_NC = codec.encode(given).codes_nNC[0].numpy()
    a = {name: values.astype(np.float64) for name, values in codec.arrays.items()}
    last, centres = len(a["basis"]) - 1, a["centre"].shape[1]

    def summed(codes_C: np.ndarray, kind: int) -> np.ndarray:
        token: np.ndarray = a["centre"][kind, codes_C[0] % centres].copy()
        for k, place in enumerate(codec.arrays["place"]):
            token += a["level"][k, codes_C[place]] * a["spread"][kind, k] * a["basis"][kind, k]
        return token

    expected = [summed(codes_NC[0], last)]
    for codes_C in codes_NC[1:]:
        kind = codes_C[0] // centres
        patch = summed(codes_C, kind)
        for p in range(a["predict"].shape[1]):
            patch += (expected[0] @ a["basis"][last, p]) * a["predict"][kind, p]
        expected.append(patch)
    decoded = codec.decode(torch.from_numpy(codes_NC)[None], None)[0]
    np.testing.assert_allclose(decoded.numpy(), np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("text", FITTED)
def test_some_patches_are_decoded_as_all(text: str) -> None:
    codec, given = fitted(text), sample(7, seed=3)
    codes, wanted = codec.encode(given).codes_nNC, [0, 2, 3, 9]
    assert torch.allclose(
        codec.decode(codes[:, wanted], None), codec.decode(codes, None)[:, wanted], atol=1e-6
    )


@pytest.mark.parametrize("text", FITTED)
def test_every_byte_string_decodes_to_numbers(text: str) -> None:
    codec = fitted(text)
    width = codec.spec.code_width(TOKEN_WIDTH)
    codes = torch.randint(256, (1, 500, width), generator=torch.Generator().manual_seed(0))
    assert bool(codec.decode(codes.to(torch.uint8), None).isfinite().all())


@pytest.mark.parametrize("text", FITTED)
def test_half_precision_tokens_are_encoded_as_floats(text: str) -> None:
    codec, plain = fitted(text), tokens(8)[None].bfloat16()
    assert torch.equal(codec.encode(plain).codes_nNC, codec.encode(plain.float()).codes_nNC)


@pytest.mark.parametrize("text", FITTED)
def test_it_is_rebuilt_from_its_parameters_and_arrays(text: str) -> None:
    codec = fitted(text)
    parameters = codec.parameters()
    assert spec_of(parameters) == codec.spec
    again = codec_of(parameters, codec.arrays)
    codes = codec.encode(tokens(6)[None]).codes_nNC
    assert again.parameters() == parameters
    assert torch.equal(again.decode(codes, None), codec.decode(codes, None))


def test_other_arrays_are_refused() -> None:
    codec = fitted("joint:bytes=4")
    changed = dict(codec.arrays) | {"basis": codec.arrays["basis"] * np.float32(1.001)}
    with pytest.raises(DataError, match="are not those that the targets were stored with"):
        codec_of(codec.parameters(), changed)
    with pytest.raises(DataError, match="are missing"):
        codec_of(codec.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"place": np.int32(0)}, {"place": np.int32(4)}, {"level": np.zeros((1, 256))},
        {"centre": np.zeros((3, 200, 12))}, {"basis": np.zeros((3, 5))},
        {"spread": np.zeros((1, 12))}, {"predict": np.zeros((2, 99, 12))},
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_together_are_refused(change: dict[str, np.ndarray]) -> None:
    arrays = dict(fitted("joint:bytes=4").arrays)
    for name, value in change.items():
        arrays[name] = np.full_like(arrays[name], value) if value.ndim == 0 else value
    parameters = fitted("joint:bytes=4").parameters() | {"arrays": hash_of(arrays)}
    with pytest.raises(DataError, match="do not fit together"):
        codec_of(parameters, arrays)


@pytest.mark.parametrize("text", FITTED)
def test_arrays_take_no_more_than_was_said(text: str) -> None:
    codec = fitted(text)
    most = array_shapes(codec.spec, TOKEN_WIDTH)
    for name, values in codec.arrays.items():
        assert values.ndim == len(most[name])
        assert all(a <= b for a, b in zip(values.shape, most[name], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("text", FITTED)
def test_compiled_decoding_is_decoding(text: str) -> None:
    codec = fitted(text)
    codes = codec.encode(tokens(40).reshape(4, 10, TOKEN_WIDTH)).codes_nNC
    compiled = torch.compile(codec.decode)(codes, None)
    assert torch.equal(compiled, codec.decode(codes, None))


@pytest.mark.parametrize("count", [1, 7, 200])
def test_each_device_multiplies_by_the_matrix_of_a_tokens_kind(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vector_TI = torch.randn(count, 5, generator=generator)
    matrix_SIO = torch.randn(4, 5, 3, generator=generator)
    kind_T = torch.randint(0, 4, (count,), generator=generator)
    wanted = torch.einsum("ti,tio->to", vector_TI, matrix_SIO[kind_T])
    for multiply in (in_blocks, kind_by_kind):
        torch.testing.assert_close(multiply(vector_TI, kind_T, matrix_SIO), wanted)
