"""Columns hold what the manifest lists, read part by part, and refuse what it refuses."""

import contextlib
import dataclasses
import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from milan_pipeline.core.schema import DocumentError
from milan_pipeline.errors import DataError, MismatchError
from milan_pipeline.shards.columns import GrowingColumns, read_image_columns, read_target_columns
from milan_pipeline.shards.listing import scan
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest

HASHES = [f"{number:064x}" for number in range(40)]


def a_shard(number, **details):
    return Shard(
        name=f"part/é{number}.tar",
        samples=number,
        bytes=512 * number,
        sha256=HASHES[number],
        index_sha256=HASHES[-1 - number],
        details=details,
    )


def targets_of(number):
    skipped = [{"key": 'a "key"\udcff', "reason": "broken"}] if number == 3 else []
    return {
        "view": number % 2,
        "source": f"é{number}",
        "source_sha256": HASHES[0],
        "skipped": skipped,
    }


class InParts(io.BytesIO):
    """Gives so many bytes at a time, however many it is asked for; all, if it is asked for all."""

    def __init__(self, data, most):
        super().__init__(data)
        self.most = most

    def read(self, size=-1):
        return super().read(self.most if size >= 0 else size)


@pytest.fixture
def manifest(tmp_path):
    shards = tuple(a_shard(number, **targets_of(number)) for number in range(5))
    common = {"a": {"shards": [1]}, "zoo": ["x\u2028", 1.5], "identity_hash": None}
    made = Manifest(kind="targets", folder=str(tmp_path), shards=shards, common=common)
    made.save()
    return made


def test_columns_hold_what_the_manifest_lists(manifest):
    columns = read_target_columns(manifest.folder)
    assert columns.shards.sha256 == manifest.sha256
    assert columns.shards.head.common == manifest.common
    without = [dataclasses.replace(shard, details={}) for shard in manifest.shards]
    assert [columns.shards.shard(number) for number in range(5)] == without
    assert columns.skipped == {3: ('a "key"\udcff',)}
    np.testing.assert_array_equal(columns.view_t, [0, 1, 0, 1, 0])
    assert load_manifest(manifest.folder, kind="targets") == manifest


def test_a_manifest_without_shards_has_columns_of_none(tmp_path):
    Manifest(kind="images", folder=str(tmp_path), shards=()).save()
    assert len(read_image_columns(str(tmp_path))) == 0


def test_columns_grow_in_place():
    """To concatenate parts would take twice the memory."""
    part = {"names_n": np.array([b"a", b"bc"]), "hashes_nH": np.ones((2, 32), np.uint8)}
    tracemalloc.start()
    try:
        growing = GrowingColumns(
            {"names_n": np.array([], "S1"), "hashes_nH": np.empty((0, 32), "B")}
        )
        for _ in range(5000):
            growing.add(part)
        found = growing.whole()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["names_n"].tolist() == part["names_n"].tolist() * 5000
    assert found["hashes_nH"].shape == (10_000, 32)
    assert found["hashes_nH"].all()
    assert peak < 1.2 * sum(column.nbytes for column in found.values())


@pytest.mark.parametrize("most", [1, 300, 1 << 20])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_parts_may_end_anywhere(manifest, count, most):
    """Parts of a byte, of about a row, and of all."""
    data = dataclasses.replace(manifest, shards=manifest.shards[:count]).to_bytes()
    whole = json.loads(data)
    rows: list[Any] = []
    found = scan(InParts(data, most), rows.extend)
    assert rows == whole.pop("shards")
    assert (found.document, found.sha256, found.error) == (whole, whole["sha256"], None)
    for position in range(0, len(data), 37):
        rows.clear()
        damaged = bytearray(data)
        damaged[position] ^= 4
        with contextlib.suppress(DocumentError):
            found = scan(InParts(bytes(damaged), most), rows.extend)
            is_same = (rows, found.document) == (json.loads(data)["shards"], whole)
            assert is_same is (found.sha256 == found.document.get("sha256"))
    with pytest.raises(DocumentError):
        scan(InParts(data[: len(data) // 2], most), rows.extend)


@pytest.mark.parametrize("form", [{}, {"indent": 2}, {"sort_keys": True, "indent": 1}])
def test_a_manifest_that_was_formatted_anew_is_read(manifest, tmp_path, form):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), **form))
    assert load_manifest(str(tmp_path), kind="targets") == manifest


def test_columns_are_refused_as_the_manifest_is(manifest, tmp_path):
    with pytest.raises(MismatchError, match="'targets' shards where 'images'"):
        read_image_columns(str(tmp_path))
    path = tmp_path / "manifest.json"
    good = path.read_bytes()
    for position in range(0, len(good), 37):
        damaged = bytearray(good)
        damaged[position] ^= 4
        path.write_bytes(bytes(damaged))
        try:
            assert read_target_columns(str(tmp_path)).shards.sha256 == manifest.sha256
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017 - other white space may pass
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="is no manifest"):
        read_target_columns(str(tmp_path))
