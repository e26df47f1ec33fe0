"""Fitted codecs: round trips of any finite input, refusals, one form on every device."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from milan_pipeline.codecs.build import codec_of
from milan_pipeline.codecs.kinds import in_blocks, kind_by_kind
from milan_pipeline.codecs.record_arrays import array_shapes, hash_of
from milan_pipeline.codecs.registry import spec_of
from milan_pipeline.errors import DataError
from tests.support.fitted import FITTED, TOKEN_WIDTH, TOKENS, fitted, sample

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def any_tokens() -> st.SearchStrategy[Tensor]:
    shapes = st.tuples(st.integers(1, 3), st.just(TOKENS), st.just(TOKEN_WIDTH))
    shaped = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=FINITE))
    return shaped.map(torch.from_numpy)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.sampled_from(FITTED), any_tokens())
def test_any_finite_input_comes_back_finite(text: str, given_nND: Tensor) -> None:
    codec = fitted(text)
    codes, scale = codec.encode(given_nND)
    assert scale is None
    assert codes.shape == (len(given_nND), *codec.spec.code_shape(TOKENS, TOKEN_WIDTH))
    assert codes.dtype == torch.uint8
    decoded = codec.decode(codes, scale)
    assert decoded.shape == given_nND.shape
    assert decoded.dtype == torch.float32
    assert bool(decoded.isfinite().all())


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.sampled_from(FITTED), st.integers(-120, 120), st.integers(0, 5))
def test_only_the_direction_counts(text: str, exponent: int, seed: int) -> None:
    codec, plain = fitted(text), sample(1, seed=seed)
    scaled = torch.ldexp(plain, torch.tensor(exponent))
    assert torch.equal(codec.encode(scaled).codes_nNC, codec.encode(plain).codes_nNC)


@pytest.mark.parametrize("text", FITTED)
@pytest.mark.parametrize("largest", [3e38, 1e-38, 1e-44])
def test_extreme_sizes(text: str, largest: float) -> None:
    codec, plain = fitted(text), sample(1)
    scaled = (plain.double() * largest / plain.abs().max()).float()
    decoded = codec.decode(*codec.encode(scaled))
    assert torch.cosine_similarity(decoded, plain, dim=-1).mean() > (0.9 if largest > 1e-40 else 0)


@pytest.mark.parametrize("text", FITTED)
def test_an_image_is_coded_without_the_others(text: str) -> None:
    codec, plain = fitted(text), sample(5)
    shape = codec.spec.code_shape(TOKENS, TOKEN_WIDTH)
    assert codec.encode(plain[:0]).codes_nNC.shape == (0, *shape)
    assert codec.decode(codec.encode(plain[:0]).codes_nNC, None).shape == (0, TOKENS, TOKEN_WIDTH)
    together = codec.encode(plain).codes_nNC
    for number in range(5):
        assert torch.equal(codec.encode(plain[number : number + 1]).codes_nNC[0], together[number])
    mixed = plain.clone()
    mixed[1, 2] = 0  # a token without length
    codes = codec.encode(mixed).codes_nNC
    assert torch.equal(codes[2:], together[2:])
    assert bool(codec.decode(codes, None).isfinite().all())


@pytest.mark.parametrize("text", FITTED)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(text: str, value: float) -> None:
    codec, plain = fitted(text), sample(3)
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
    codec = fitted(text)
    codes_B = codec.encode(sample(1, seed=5)).codes_nNC[0, 0].numpy()
    a = {name: values.astype(np.float64) for name, values in codec.arrays.items()}
    i = codec.arrays
    of_cls, (patterns, components) = len(a["cls_basis"]), (len(a["position"]), len(a["basis"]))
    cls, grid = np.zeros(of_cls), np.zeros((patterns, components))
    for row, byte, column, scale in zip(i["row"], i["byte"], i["column"], a["scale"], strict=True):
        value = a["level"][column, codes_B[byte]] * scale
        if row < of_cls:
            cls[row] = value
        else:
            grid[divmod(row - of_cls, components)] = value
    expected = a["mean"].copy()
    expected[0] += cls @ a["cls_basis"]
    expected[1:] += a["position"].T @ grid @ a["basis"]
    if codec.has_token_layer:
        first = int(i["byte"].max()) + 1
        at = first + TOKENS - 1
        for patch, number in enumerate(codes_B[first:at]):
            kind, centre = divmod(int(number), a["centre"].shape[1])
            tier = i["tier"][kind, centre]
            expected[1 + patch] += a["centre"][kind, centre]
            expected[1 + patch] += cls[: a["predict"].shape[1]] @ a["predict"][kind]
            for k in np.flatnonzero(a["tier_level"][tier].any(axis=1)):
                level = a["tier_level"][tier, k, codes_B[at + i["tier_place"][tier, k]]]
                expected[1 + patch] += level * a["spread"][kind, k] * a["kind_basis"][kind, k]
            at += i["tier_bytes"][tier]
        assert at <= len(codes_B)
    decoded = codec.decode(torch.from_numpy(codes_B)[None, None], None)[0]
    np.testing.assert_allclose(decoded.numpy(), expected, atol=1e-5)


def test_both_layers_are_tried() -> None:
    assert {fitted(text).has_token_layer for text in FITTED} == {True, False}


@pytest.mark.parametrize("text", FITTED)
def test_every_byte_string_decodes_to_numbers(text: str) -> None:
    codec = fitted(text)
    shape = codec.spec.code_shape(TOKENS, TOKEN_WIDTH)
    codes = torch.randint(256, (500, *shape), generator=torch.Generator().manual_seed(0))
    assert bool(codec.decode(codes.to(torch.uint8), None).isfinite().all())


@pytest.mark.parametrize("text", FITTED)
def test_half_precision_tokens_are_encoded_as_floats(text: str) -> None:
    codec, plain = fitted(text), sample(2).bfloat16()
    assert torch.equal(codec.encode(plain).codes_nNC, codec.encode(plain.float()).codes_nNC)


@pytest.mark.parametrize("text", FITTED)
def test_it_is_rebuilt_from_its_parameters_and_arrays(text: str) -> None:
    codec = fitted(text)
    parameters = codec.parameters()
    assert spec_of(parameters) == codec.spec
    again = codec_of(parameters, codec.arrays)
    codes = codec.encode(sample(2)).codes_nNC
    assert again.parameters() == parameters
    assert torch.equal(again.decode(codes, None), codec.decode(codes, None))


def test_other_arrays_are_refused() -> None:
    codec = fitted("joint:bytes=4")
    changed = dict(codec.arrays) | {"level": codec.arrays["level"] * np.float32(1.001)}
    with pytest.raises(DataError, match="are not those that the targets were stored with"):
        codec_of(codec.parameters(), changed)
    with pytest.raises(DataError, match="are missing"):
        codec_of(codec.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"byte": np.int32(-1)}, {"row": np.int32(999)}, {"level": np.zeros((1, 256))},
        {"column": np.int32(999)}, {"position": np.zeros((3, 4))}, {"scale": np.zeros(3)},
        {"centre": np.zeros((3, 200, 12))}, {"kind_basis": np.zeros((3, 5))},
        {"spread": np.zeros((1, 13))}, {"predict": np.zeros((2, 99, 12))},
        {"tier": np.int32(9)}, {"tier_place": np.zeros((9, 9))},
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
    most = array_shapes(codec.spec, TOKENS, TOKEN_WIDTH)
    for name, values in codec.arrays.items():
        assert values.ndim == len(most[name])
        assert all(a <= b for a, b in zip(values.shape, most[name], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("text", FITTED)
def test_compiled_decoding_is_decoding(text: str) -> None:
    codec = fitted(text)
    codes = codec.encode(sample(4)).codes_nNC
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
