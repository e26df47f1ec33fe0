"""Manifest and index: round trip, damage of any byte, refusals."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, DataError, MismatchError, MissingDataError
from milan_pipeline.shards.index import index_bytes, index_table, keys_of, load_index
from milan_pipeline.shards.listing import content_sha256
from milan_pipeline.shards.manifest import (
    Manifest,
    Shard,
    holds_manifest,
    load_manifest,
    require_unique_stems,
    stated_kind,
)

SHARD = Shard(name="x-0.tar", samples=2, bytes=10, sha256="ab", index_sha256="cd")


def a_manifest(folder: Path, *shards: Shard, **more) -> Manifest:
    return Manifest(kind="images", folder=str(folder), shards=shards or (SHARD,), **more)


def test_round_trip(tmp_path: Path) -> None:
    detailed = dataclasses.replace(SHARD, details={"skipped": [{"key": "ä", "reason": "b"}]})
    manifest = a_manifest(tmp_path, detailed, common={"classes": ["ant", "\udcff"]})
    manifest.save()
    loaded = load_manifest(str(tmp_path), kind="images")
    assert loaded == manifest
    assert loaded.sha256 == manifest.sha256
    assert load_manifest(str(tmp_path / "manifest.json"), kind="images") == manifest


def test_any_damaged_byte_is_noticed(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, common={"classes": ["ant"]})
    manifest.save()
    path = tmp_path / "manifest.json"
    good = path.read_bytes()
    refused = 0
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        try:
            # What may pass is other white space.
            assert load_manifest(str(tmp_path), kind="images") == manifest
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017 - passing is allowed, too
            refused += 1
    assert refused > 0.9 * len(good)


def test_truncation_anywhere_is_noticed(tmp_path: Path) -> None:
    a_manifest(tmp_path).save()
    path = tmp_path / "manifest.json"
    good = path.read_bytes()
    for length in range(len(good) - 1):  # without the last line break it is whole
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match=r"manifest\.json"):
            load_manifest(str(tmp_path), kind="images")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"`milan-pipeline index` one for tars"):
        load_manifest(str(tmp_path), kind="images")
    with pytest.raises(MissingDataError, match=r"`milan-pipeline pack-targets` makes it"):
        load_manifest(str(tmp_path), kind="targets")
    a_manifest(tmp_path, complete=False).save()
    with pytest.raises(MismatchError, match="'images' shards where 'targets'"):
        load_manifest(str(tmp_path), kind="targets", allow_unfinished=True)
    with pytest.raises(MismatchError, match="is not complete"):
        load_manifest(str(tmp_path), kind="images")
    assert not load_manifest(str(tmp_path), kind="images", allow_unfinished=True).complete


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    a_manifest(tmp_path).save()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(DataError, match="format version 2"):
        load_manifest(str(tmp_path), kind="images")


@pytest.mark.parametrize(
    ("name", "url", "index"),
    [
        ("x-0.tar", "/data/x-0.tar", "/data/x-0.index.npy"),
        ("view-00/x.tar", "/data/view-00/x.tar", "/data/view-00/x.index.npy"),
        ("s3://bucket/y/x.tar", "s3://bucket/y/x.tar", "/data/x.index.npy"),
        ("/other/x.tar", "/other/x.tar", "/data/x.index.npy"),
    ],
)
def test_where_shard_and_index_lie(name: str, url: str, index: str) -> None:
    shard = dataclasses.replace(SHARD, name=name)
    manifest = a_manifest(Path("/data"), shard)
    assert manifest.url_of(shard) == url
    assert manifest.index_url_of(shard) == index


def test_equal_stems_are_refused() -> None:
    other = dataclasses.replace(SHARD, name="elsewhere/x-0.tar")
    require_unique_stems((SHARD, dataclasses.replace(SHARD, name="x-1.tar")))
    with pytest.raises(MismatchError, match=r"x-0\.tar"):
        require_unique_stems((SHARD, other))


ROW = st.tuples(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**64 - 1),
)


def put_index(folder: Path, data: bytes, samples: int) -> tuple[Manifest, Shard]:
    (folder / "x-0.index.npy").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    shard = dataclasses.replace(SHARD, samples=samples, index_sha256=digest)
    return a_manifest(folder, shard), shard


@settings(deadline=None, derandomize=True)
@given(rows=st.lists(ROW, max_size=6))
def test_index_round_trip(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    manifest, shard = put_index(
        tmp_path_factory.mktemp("i"), index_bytes(index_table(rows)), len(rows)
    )
    table = load_index(manifest, shard)
    assert keys_of(table) == [row[0] for row in rows]
    for name, column in zip(("offset", "length", "xxh3"), (1, 2, 3), strict=True):
        assert table[name].tolist() == [row[column] for row in rows]


def test_any_damaged_bit_of_an_index_is_noticed(tmp_path: Path) -> None:
    good = index_bytes(index_table([("a", 512, 3, 7), ("b", 1024, 4, 8)]))
    manifest, shard = put_index(tmp_path, good, 2)
    load_index(manifest, shard)
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        storage.put_bytes(manifest.index_url_of(shard), bytes(damaged))
        with pytest.raises(DataError, match=r"x-0\.index\.npy does not match"):
            load_index(manifest, shard)


def test_an_index_of_another_length_is_noticed(tmp_path: Path) -> None:
    manifest, shard = put_index(tmp_path, index_bytes(index_table([("a", 512, 3, 7)])), 2)
    with pytest.raises(DataError, match="has 1 rows, the manifest 2"):
        load_index(manifest, shard)


def test_json_that_nests_too_deeply_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(
        DataError, match=r"manifest\.json is no manifest of shards .* or move it away"
    ):
        load_manifest(str(tmp_path), kind="images")


def test_a_shard_that_nests_too_deeply_is_named(tmp_path):
    a_manifest(tmp_path).save()
    path = tmp_path / "manifest.json"
    text = path.read_text()
    path.write_text(
        text.replace('"details": {}', '"details": ' + '{"a": ' * 9999 + "1" + "}" * 9999)
    )
    assert path.read_text() != text
    with pytest.raises(DataError, match=r"manifest\.json is no manifest of shards"):
        load_manifest(str(tmp_path), kind="images")


def test_the_kind_of_shards_is_read_from_the_beginning(tmp_path):
    a_manifest(tmp_path).save()
    path = tmp_path / "manifest.json"
    text = path.read_text()
    path.write_text(text[:-20])  # what cannot be parsed was not
    assert stated_kind(str(tmp_path)) == "images"
    path.write_text(json.dumps(dict(sorted(json.loads(text).items()))))
    assert stated_kind(str(tmp_path)) == "images"
    for other, held in (('{"kind": "images"}', False), ('{"shards": []}', True), ("{", True)):
        path.write_text(other)
        assert holds_manifest(str(tmp_path)) == held


@pytest.mark.parametrize(
    ("kind", "remedy"), [("images", "`milan-pipeline index`"), ("targets", "pack-targets` again")]
)
def test_an_index_that_is_not_there_is_named(tmp_path, kind, remedy):
    manifest = dataclasses.replace(a_manifest(tmp_path), kind=kind)
    with pytest.raises(MissingDataError, match=rf"x-0\.index\.npy does not exist; .*{remedy}"):
        load_index(manifest, SHARD)


def test_an_index_that_is_pickled_is_refused(tmp_path):
    data = io.BytesIO()
    np.save(data, np.array([{}]), allow_pickle=True)
    (tmp_path / "x.index.npy").write_bytes(data.getvalue())
    digest = hashlib.sha256(data.getvalue()).hexdigest()
    shard = Shard(name="x.tar", samples=1, bytes=1, sha256="", index_sha256=digest)
    manifest = Manifest(kind="images", folder=str(tmp_path), shards=(shard,))
    with pytest.raises(DataError, match=r"x\.index\.npy is no table .*make the index again"):
        load_index(manifest, shard)


@pytest.mark.parametrize("row", ["a.tar", None, {**vars(SHARD), "details": [1]}])
def test_a_row_that_is_no_shard_is_named(tmp_path, row):
    (tmp_path / "manifest.json").write_text(json.dumps(a_document([row])))
    with pytest.raises(DataError, match=r"no manifest of shards \(Expected `object`, got"):
        load_manifest(str(tmp_path), kind="images")


def a_document(rows: list[Any]) -> dict[str, Any]:
    """A manifest of our own with some rows."""
    content = Manifest(kind="images", folder="", shards=()).content() | {"shards": rows}
    return content | {"sha256": content_sha256(content)}


def test_a_shard_of_a_wrong_type_is_named(tmp_path):
    wrong: Any = ["x"]
    row = dataclasses.replace(SHARD, name=wrong)
    Manifest(kind="images", folder=str(tmp_path), shards=(row,)).save()
    with pytest.raises(
        DataError,
        match=r"no manifest of shards \(Expected `str`, got `array` - at `\$\.name`\)",
    ):
        load_manifest(str(tmp_path), kind="images")


def test_what_is_given_in_place_of_the_folder_of_a_manifest(tmp_path):
    a_manifest(tmp_path).save()
    for place in ("a-000.tar", "a-{000..001}.tar", "view-00"):
        with pytest.raises(MissingDataError, match=f"it lies in {tmp_path}: give that folder"):
            load_manifest(str(tmp_path / place), kind="images")
    signed = "https://nowhere.invalid/shards/manifest.json?signature=1/2"
    with pytest.raises(ConfigError, match="`milan-pipeline index --out FOLDER`"):
        load_manifest(signed, kind="images")
