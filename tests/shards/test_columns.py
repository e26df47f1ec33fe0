"""Columns hold what the manifest lists, read part by part, and refuse what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from milan_pipeline.errors import DataError, MismatchError
from milan_pipeline.shards import listing
from milan_pipeline.shards.columns import read_image_columns, read_target_columns
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


@pytest.fixture(params=[1, 300, 1 << 20])
def part_bytes(request, monkeypatch):
    """Parts of a byte, of about a row, and of all."""
    monkeypatch.setattr(listing, "PART_BYTES", request.param)


@pytest.fixture
def manifest(tmp_path):
    shards = tuple(a_shard(number, **targets_of(number)) for number in range(5))
    common = {"a": {"shards": [1]}, "zoo": ["x\u2028", 1.5], "identity_hash": None}
    made = Manifest(kind="targets", folder=str(tmp_path), shards=shards, common=common)
    made.save()
    return made


@pytest.mark.usefixtures("part_bytes")
def test_columns_hold_what_the_manifest_lists(manifest):
    columns = read_target_columns(manifest.folder)
    assert columns.shards.sha256 == manifest.sha256
    assert columns.shards.head.common == manifest.common
    without = [dataclasses.replace(shard, details={}) for shard in manifest.shards]
    assert [columns.shards.shard(number) for number in range(5)] == without
    assert columns.skipped == {3: ('a "key"\udcff',)}
    np.testing.assert_array_equal(columns.view_t, [0, 1, 0, 1, 0])
    assert load_manifest(manifest.folder, kind="targets") == manifest


@pytest.mark.usefixtures("part_bytes")
def test_a_manifest_without_shards_has_columns_of_none(tmp_path):
    Manifest(kind="images", folder=str(tmp_path), shards=()).save()
    assert len(read_image_columns(str(tmp_path))) == 0


@pytest.mark.parametrize("form", [{}, {"indent": 2}, {"sort_keys": True, "indent": 1}])
def test_a_manifest_that_was_formatted_anew_is_read(manifest, tmp_path, form):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), **form))
    assert load_manifest(str(tmp_path), kind="targets") == manifest


@pytest.mark.usefixtures("part_bytes")
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
