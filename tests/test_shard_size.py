"""The bytes of target shards, foretold: tars, indices and manifest, to the byte."""

from pathlib import Path

import pytest

from milan_pipeline.dataset_size import key_bytes
from milan_pipeline.identity import content_hash
from milan_pipeline.manifest import Manifest, Shard, load_index
from milan_pipeline.shard_size import ShardSize, tar_header_bytes
from milan_pipeline.shards import Sample, write_shard
from milan_pipeline.target_records import TARGET_EXTENSION, layout_of
from milan_pipeline.units import Unit, target_shard_name
from tests.test_store_size import identity_of

KEYS = {
    "none": [],
    "one": ["a"],
    "many": [f"class/{number}" for number in range(300)],
    "long": [f"{'d' * 95}/{number}" for number in range(20)],
    "not ASCII": [f"ä{'b' * number}" for number in range(20)],
    "very long": ["é" * 300, "x" * 600, "y" * 89, "z" * 88, "w" * 80],
}


@pytest.mark.parametrize("codec", ["float16", "int8"])
@pytest.mark.parametrize("kind", KEYS)
def test_a_shard_takes_what_was_said(tmp_path: Path, codec: str, kind: str) -> None:
    identity = identity_of(codec, 9, 6)
    data = bytes(layout_of(identity).bytes_per_sample)
    samples = [Sample(key, {TARGET_EXTENSION: data}) for key in KEYS[kind]]
    listed = write_shard(str(tmp_path), "t.tar", samples)
    manifest = Manifest(kind="targets", folder=str(tmp_path), shards=(listed,))
    keys = key_bytes(load_index(manifest, listed))
    size = ShardSize(identity)
    assert size.tar(len(samples), keys) == (tmp_path / "t.tar").stat().st_size
    image_shard = Shard(name="i.tar", samples=len(samples), bytes=0, sha256="", index_sha256="")
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size.units([(Unit(0, image_shard), keys)]) == written
    assert keys.total == sum(len(key.encode()) for key in KEYS[kind])


@pytest.mark.parametrize(("key", "size"), [("a", 512), ("a" * 89, 512), ("a" * 90, 1536)])
def test_long_names_take_more(key: str, size: int) -> None:
    assert tar_header_bytes(key) == size


def test_the_manifest_takes_what_was_said(tmp_path: Path) -> None:
    identity = identity_of("int8", 9, 6)
    shard = Shard(name="i.tar", samples=3, bytes=0, sha256="5" * 64, index_sha256="")
    keys = key_bytes(load_index(*indexed(tmp_path)))
    units = [(Unit(view, shard), keys) for view in range(3)]
    size = ShardSize(identity)
    listed = tuple(
        Shard(
            name=target_shard_name(unit),
            samples=3,
            bytes=size.tar(3, keys),
            sha256="1" * 64,
            index_sha256="2" * 64,
            details={
                "view": unit.view,
                "source": "i",
                "source_sha256": "5" * 64,
                "unit_sha256": "3" * 64,
                "skipped": [],
            },
        )
        for unit, _ in units
    )
    common = {"identity": identity, "identity_hash": content_hash(identity)}
    Manifest(kind="targets", folder=str(tmp_path / "m"), shards=listed, common=common).save()
    manifest = (tmp_path / "m" / "manifest.json").stat().st_size
    assert size.manifest(units) == manifest


def indexed(folder: Path) -> tuple[Manifest, Shard]:
    shard = write_shard(str(folder), "x.tar", [Sample(key, {"jpg": b"1"}) for key in "abc"])
    return Manifest(kind="images", folder=str(folder), shards=(shard,)), shard
