"""Identities before anything is loaded or fitted: what is known, what is there, stand-ins."""

from typing import Any

from milan_pipeline.codecs.registry import UNFITTED, parse_codec
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.targets.expected_identity import expected_extracted, expected_transcoded

KNOWN: dict[str, dict[str, Any]] = {
    "teacher": {"name": "t", "width": 6},
    "preprocessing": {"size": 32},
}


def test_what_is_there_lends_its_arrays_to_the_expected_identity() -> None:
    source = {"teacher": {"width": 6}, "codec": {"name": "float16"}}
    spec = parse_codec("joint:bytes=3")
    new = expected_transcoded(source, spec, None)
    assert new["codec"]["arrays"] == UNFITTED
    there = new | {"codec": new["codec"] | {"arrays": "5" * 64}}
    assert expected_transcoded(source, spec, there) == there
    plain = expected_transcoded(source, parse_codec("int8"), there)
    assert (plain["codec"], plain["transcoded_from"]) == ({"name": "int8"}, {"name": "float16"})


def test_what_only_weights_tell_is_that_of_the_store() -> None:
    spec = parse_codec("joint:ratio=4")
    new = expected_extracted(KNOWN, ViewPolicy(), spec)
    assert new["codec"] == {**new["codec"], "bytes": 3, "arrays": UNFITTED}
    assert new["preprocessing"] == {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 32}
    there = {
        **new,
        "teacher": {"name": "other", "width": 6, "weights_sha256": "abc"},
        "codec": new["codec"] | {"arrays": "5" * 64},
        "transcoded_from": {"name": "int8"},
    }
    found = expected_extracted(KNOWN, ViewPolicy(seed=3), spec, there)
    assert found["teacher"] == {"name": "t", "width": 6, "weights_sha256": "abc"}
    assert found["codec"] == there["codec"]
    assert found["view_policy"] == ViewPolicy(seed=3).as_dict()
    assert "transcoded_from" not in found


def test_the_size_that_a_cosine_takes_is_that_of_the_store() -> None:
    source = {"teacher": {"width": 6}, "codec": {"name": "float16"}}
    spec = parse_codec("cosine:0.99").for_width(6)
    new = expected_transcoded(source, spec, None)
    assert new["codec"]["bytes"] == 6  # as int8, until it is fitted
    there = new | {"codec": new["codec"] | {"arrays": "5" * 64, "bytes": 3}}
    assert expected_transcoded(source, spec, there) == there
    other = parse_codec("cosine:0.95").for_width(6)
    assert expected_transcoded(source, other, there)["codec"]["bytes"] == 6
