"""Identities: hash, comparison, refusal by field."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.errors import MismatchError
from milan_pipeline.provenance.identity import (
    build_identity,
    content_hash,
    differences,
    require_same,
    transcoded_identity,
)

VALUE = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False)
DOCUMENT = st.dictionaries(
    st.text(max_size=3), VALUE | st.dictionaries(st.text(max_size=3), VALUE, max_size=3), max_size=4
)


@settings(deadline=None, derandomize=True)
@given(DOCUMENT)
def test_the_hash_depends_on_content_alone(document: dict[str, Any]) -> None:
    turned = dict(reversed(list(document.items())))
    assert content_hash(document) == content_hash(turned)
    assert content_hash(json.loads(json.dumps(document))) == content_hash(document)
    assert content_hash({**document, "one more": 1}) != content_hash(document)


@settings(deadline=None, derandomize=True)
@given(DOCUMENT, DOCUMENT)
def test_differences_are_symmetric_and_complete(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    assert differences(left, left) == []
    there = differences(left, right)
    assert [(name, b, a) for name, a, b in there] == differences(right, left)
    require_same(left, left, what="x", remedy="y")


def test_each_field_is_named_with_both_values() -> None:
    parts: dict[str, dict[str, Any]] = {
        name: {} for name in ("teacher", "preprocessing", "view_policy", "codec")
    }
    there = build_identity(**(parts | {"teacher": {"name": "ViT-B-16", "grid": [14, 14]}}))
    here = build_identity(**(parts | {"teacher": {"name": "ViT-B-32", "grid": [14, 14]}}))
    here["codec"]["name"] = "int8"
    assert differences(there, here) == [
        ("codec.name", None, "int8"),
        ("teacher.name", "ViT-B-16", "ViT-B-32"),
    ]
    with pytest.raises(MismatchError) as caught:
        require_same(there, here, what="targets.zarr", remedy="give another")
    assert str(caught.value) == (
        "targets.zarr was made with other parameters: codec.name is not given there and 'int8' "
        "here, teacher.name is 'ViT-B-16' there and 'ViT-B-32' here; give another"
    )


def test_a_long_record_is_not_written_out() -> None:
    with pytest.raises(MismatchError, match="inputs is given there and not given here; give"):
        require_same({"inputs": {"a": "x" * 500}}, {}, what="run", remedy="give another")


def test_generations_stay_named() -> None:
    first = build_identity(teacher={"name": "t"}, preprocessing={}, view_policy={}, codec={"n": 1})
    second = transcoded_identity(first, {"n": 2})
    assert second == {**first, "codec": {"n": 2}, "transcoded_from": {"n": 1}}
    third = transcoded_identity(second, {"n": 3})
    assert third["transcoded_from"] == {"n": 2, "transcoded_from": {"n": 1}}
    assert differences(transcoded_identity(first, {"n": 3}), third) == [
        ("transcoded_from.n", 1, 2),
        ("transcoded_from.transcoded_from", None, {"n": 1}),
    ]
    assert differences(first, second)[1] == ("transcoded_from", None, {"n": 1})
