"""Which units are packed is told by the manifest's rows, in whatever order they come."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.packed import read_shards_there
from milan_pipeline.targets.store_record import finished_units, read_store_record


@pytest.fixture
def out(target_shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(target_shards, tmp_path / "shards")


def packed(store: Path, out: Path) -> list[bool] | None:
    identity = read_identity(str(store))
    record = read_store_record(str(store), identity)
    units = finished_units(str(store), identity, record, views=None, allow_unfinished=False)
    there = read_shards_there(str(out), units)
    return None if there is None else there.packed(identity).tolist()


def test_rows_are_found_in_any_order(target_store: Path, out: Path) -> None:
    manifest = load_manifest(str(out), kind="targets")
    mixed = manifest.shards[::-2] + manifest.shards[::2]
    dataclasses.replace(manifest, shards=mixed).save()
    assert packed(target_store, out) == [True] * 6
    dataclasses.replace(manifest, shards=mixed[1:]).save()
    left = packed(target_store, out)
    assert left is not None
    assert left.count(False) == 1


def test_what_is_gone_or_of_another_unit_or_of_other_targets_is_not_packed(
    target_store: Path, out: Path, tmp_path: Path
) -> None:
    assert packed(target_store, tmp_path / "nowhere") is None
    manifest = load_manifest(str(out), kind="targets")
    (out / manifest.shards[1].name).unlink()
    stale, strange = (
        dataclasses.replace(manifest.shards[at], details={**manifest.shards[at].details, name: "0"})
        for at, name in ((4, "unit_sha256"), (0, "identity_hash"))
    )
    shards = (strange, *manifest.shards[1:4], stale, manifest.shards[5])
    dataclasses.replace(manifest, shards=shards).save()
    assert packed(target_store, out) == [False, False, True, True, False, True]
    other = {**manifest.common["identity"], "codec": {"name": "int8"}}
    common = {"identity": other, "identity_hash": content_hash(other)}
    dataclasses.replace(manifest, common=common).save()
    assert packed(target_store, out) == [False] * 6
