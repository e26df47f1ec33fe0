"""What lies in the place of a file is told, whoever reads it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from milan_pipeline.core.file_kinds import explained
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import DataError
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.random_access import SampleReader
from milan_pipeline.shards.sequential import read_rows
from milan_pipeline.storage.checksums import put_with_sums, read_checked
from milan_pipeline.targets.verified_objects import VerifiedObjects
from tests.support.cli import run_cli
from tests.support.pictures import write_picture

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 6674980\n" % 0


def test_a_sentence_of_what_is_there_or_else_of_what_is_wrong() -> None:
    assert explained("x.tar", POINTER, "is damaged").startswith("x.tar is a Git LFS pointer and")
    assert explained("x.tar", b"", "is damaged") == "x.tar is damaged"
    with pytest.raises(DocumentError, match=r"^it is a Git LFS pointer"):
        parsed(POINTER.decode(), dict)


def _read_at_once(folder: str) -> None:
    manifest = load_manifest(folder, kind="images")
    (shard,) = manifest.shards
    table = load_index(manifest, shard)
    list(read_rows([(manifest.url_of(shard), table)], threads=0))


def _read_one(folder: str) -> None:
    manifest = load_manifest(folder, kind="images")
    (shard,) = manifest.shards
    SampleReader().read_row(manifest.url_of(shard), load_index(manifest, shard)[-1])


@pytest.mark.parametrize("name", ["manifest.json", "images-000000.index.npy", "images-000000.tar"])
@pytest.mark.parametrize("read", [_read_at_once, _read_one])
def test_a_pointer_in_place_of_any_file_of_shards(
    name: str, read: Callable[[str], None], tmp_path: Path
) -> None:
    for number in range(2):
        write_picture(tmp_path / f"in/{number}.jpg", number)
    run_cli("pack-images", tmp_path / "in", tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(POINTER)
    with pytest.raises(DataError, match="is a Git LFS pointer and not the file itself"):
        read(str(tmp_path / "out"))


def test_a_pointer_in_place_of_weights_and_of_a_unit(tmp_path: Path) -> None:
    place = tmp_path / "encoder.safetensors"
    put_with_sums(str(tmp_path), {place.name: b"weights"})
    place.write_bytes(POINTER)
    with pytest.raises(DataError, match=r"encoder\.safetensors is a Git LFS pointer"):
        read_checked(str(place))
    objects = VerifiedObjects(str(tmp_path), {place.name: ""}, remedy="extract it again")
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        objects._fetch(place.name)
