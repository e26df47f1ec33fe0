"""Values of --codec: what they mean, what is refused, and what identities record."""

import dataclasses

import pytest

from milan_pipeline.codecs.registry import (
    CODECS,
    LEVELS,
    REPLACED,
    parse_codec,
    spec_of,
)
from milan_pipeline.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("text", "width", "size"),
    [("high", 512, 853), ("compact", 512, 426), ("tiny", 512, 170), ("high", 128, 213),
     ("tiny", 6, 2), ("joint:bytes=7", 512, 70), ("joint:bytes=1.85", 128, 18),
     ("joint:ratio=16", 128, 160), ("joint:ratio=2.5", 100, 800)],
)  # fmt: skip
def test_bytes_of_ten_tokens_are_known_before_anything_is_fitted(
    text: str, width: int, size: int
) -> None:
    spec = parse_codec(text)
    assert spec.needs_fit
    assert spec.code_shape(10, width) == (1, size)
    assert spec.payload_bytes(10, width) == size
    assert spec.for_width(width).payload_bytes(10, width) == size
    assert spec.dtype == "u1"
    assert not spec.has_scale


def test_plain_ones() -> None:
    names = ("float16", "bfloat16", "int8")
    sizes = {name: parse_codec(name).payload_bytes(10, 128) for name in names}
    assert sizes == {"float16": 2560, "bfloat16": 2560, "int8": 1300}
    assert parse_codec("int8").code_shape(10, 128) == (10, 128)
    assert not any(parse_codec(name).needs_fit for name in sizes)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_a_joint_codec_of_its_size(level: str) -> None:
    ratio = {"high": 12, "compact": 24, "tiny": 60}[level]
    assert parse_codec(level) == parse_codec(f"joint:ratio={ratio}")


@pytest.mark.parametrize(
    ("text", "says"),
    [("pq", "'pq' is unknown; choose one of float16, bfloat16, int8, high"),
     ("int8:bytes=4", "int8 takes no options; give --codec int8"),
     ("joint", "does not say how small; give joint:bytes=N"),
     ("joint:bits=4", "is unknown; choose one of"), ("joint:bytes=0.2", "at least 0.25"),
     ("joint:ratio=1", "not within 2 to 1000"),
     ("high:bytes=4", "is unknown"), ("", "is unknown"),
     ("rotation", "does not say how small; give rotation:bits=4"), ("rotation:bytes=9", "unknown"),
     ("rotation:bits=5", "not within 1 to 4 whole bits"), ("rotation:bits=0", "not within 1 to"),
     ("rotation:bits=2.5", "not within 1 to 4"),
     ("cosine:0.4", "takes a mean cosine from 0.5 to 0.9999; give cosine:0.99"),
     ("cosine", "takes a mean cosine"), ("cosine:1", "takes a mean"), ("cosine:x", "takes a mean"),
     ("vector:ratio=12", "joint has replaced vector, .* give joint:ratio=12"),
     ("transform", "joint has replaced transform, .* give joint:bytes=N")],
)  # fmt: skip
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_codec(text)


@pytest.mark.parametrize(("bits", "size"), [(1, 64), (2, 128), (3, 192), (4, 256)])
def test_a_rotation_takes_its_bits_and_needs_no_fit(bits: int, size: int) -> None:
    spec = parse_codec(f"rotation:bits={bits}")
    assert not spec.needs_fit
    assert spec.is_directional
    assert spec.code_shape(10, 512) == (10, size)
    assert spec.payload_bytes(10, 512) == 10 * size
    assert spec_of(spec.parameters()) == spec


@pytest.mark.parametrize("width", [5, 20])
def test_a_width_that_a_rotation_does_not_take_is_refused(width: int) -> None:
    says = f"width is divisible by 8, and these have {width}; give --codec int8 or high"
    with pytest.raises(ConfigError, match=says):
        parse_codec("rotation:bits=4").for_width(width)
    with pytest.raises(ConfigError, match=says):
        parse_codec("rotation:bits=4").code_shape(10, width)


def test_more_than_int8_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"bytes=65 is more than int8 takes .* give at most 64"):
        parse_codec("joint:bytes=65").for_width(64)


def test_a_cosine_is_known_again_with_the_bytes_that_it_takes() -> None:
    spec = parse_codec("cosine:0.99").for_width(64)
    assert (spec.needs_fit, spec.code_shape(10, 64)) == (True, (1, 640))
    fitted = dataclasses.replace(spec, token_bytes=9.0)
    assert spec_of(fitted.parameters()) == fitted
    assert spec.asks_for(fitted)
    assert not spec.asks_for(parse_codec("joint:bytes=9").for_width(64))
    assert parse_codec("joint:bytes=9").for_width(64).asks_for(fitted)  # not to be fitted twice
    assert not parse_codec("joint:bytes=8").for_width(64).asks_for(fitted)
    assert parse_codec("int8").asks_for(parse_codec("int8"))


@pytest.mark.parametrize("name", CODECS)
def test_a_newer_version_is_refused_by_name(name: str) -> None:
    version = CODECS[name].version + 1
    says = f"the codec {name} in its format version {version}, this program reads"
    with pytest.raises(DataError, match=says):
        spec_of({"name": name, "version": version, "more": "unknown"})


def test_an_image_that_was_coded_token_by_token_is_refused_by_name() -> None:
    old = {"name": "joint", "version": 1, "bytes": 21, "prior": "log8", "arrays": "0" * 64}
    with pytest.raises(DataError, match=r"codec joint in its format version 1, .* no longer reads"):
        spec_of(old)


def test_the_bytes_of_an_image_come_back_from_those_of_a_token() -> None:
    spec = parse_codec("cosine:0.9").for_width(128)
    for tokens in (7, 65, 197, 257):
        for size in range(1, 128 * tokens, 97):
            found = dataclasses.replace(spec, token_bytes=size / tokens)
            assert spec_of(found.parameters()).code_shape(tokens, 128) == (1, size)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"name": "pq"}, {"name": "int8", "bits": 4}, {"name": "joint", "bytes": 4},
     {"name": "joint", "version": 2, "bytes": 4, "prior": "raw", "arrays": "0" * 64},
     {"name": "rotation", "version": 1, "bits": 9, "prior": "log8"}],
)  # fmt: skip
def test_what_this_version_does_not_know_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(DataError, match="this version does not know"):
        spec_of(parameters)


@pytest.mark.parametrize("name", REPLACED)
def test_targets_of_a_codec_of_earlier_versions_are_refused_by_name(name: str) -> None:
    stored = {"name": name, "version": 1, "bytes": 4, "prior": "log8", "arrays": "0" * 64}
    with pytest.raises(DataError, match=f"the codec {name}, which this version no longer reads"):
        spec_of(stored)
