"""What lies in a store and nobody reads; groups that should be there. On disks and elsewhere."""

import json
import uuid
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.storage.filesystems import resolve
from milan_pipeline.targets.units import Unit
from milan_pipeline.targets.verification import StoreCheck
from milan_pipeline.targets.verification_work import Checking, extra_names, faults_of_groups
from tests.support.stores import make_block, write


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else f"memory://{uuid.uuid4().hex}"


def names_of(store: str, unit: Unit) -> int | None:
    """Return the hash of a unit's names, as the check of the unit finds it."""
    return Checking(StoreCheck(url=store, identity={})).do(unit, StopRequest()).names


def test_a_fresh_store_has_nothing_extra(store: str) -> None:
    unit, _ = write(store, make_block(300))
    assert extra_names(store, 0, {unit.shard.stem: (unit, names_of(store, unit))}) == 0
    assert faults_of_groups(store, 1) == {}


def test_strangers_are_counted(store: str) -> None:
    unit, _ = write(store, make_block(300))
    known = {unit.shard.stem: (unit, names_of(store, unit))}
    for path in ("codes/c/7/0/0", "codes/other", "new/zarr.json"):
        storage.put_bytes(storage.join(store, unit.path, path), b"x")
    assert extra_names(store, 0, known) == 3
    storage.put_bytes(storage.join(store, "view-00", "stranger", "zarr.json"), b"x")
    assert extra_names(store, 0, known) == 4
    assert extra_names(store, 0, {unit.shard.stem: (unit, None)}) == 1
    assert extra_names(store, 0, {}) == 2


def test_an_object_that_is_missing_is_not_extra(store: str) -> None:
    unit, mark = write(store, make_block(3))
    known = {unit.shard.stem: (unit, names_of(store, unit))}
    file = resolve(storage.join(store, unit.path, min(mark.objects)))
    file.filesystem.rm_file(file.path)
    assert extra_names(store, 0, known) == 0


def test_groups_that_are_missing_or_damaged(store: str) -> None:
    write(store, make_block(3))
    faults = faults_of_groups(store, 2)
    assert list(faults) == [1]
    assert faults[1].endswith("view-01/zarr.json is missing")
    place = storage.join(store, "view-00", "zarr.json")
    # As zarr 3.1.0 writes it, and by ZARR_JSON_INDENT.
    group = {
        "attributes": {},
        "zarr_format": 3,
        "consolidated_metadata": None,
        "node_type": "group",
    }
    storage.put_bytes(place, json.dumps(group, indent=5).encode())
    assert faults_of_groups(store, 1) == {}
    for damaged in (b"", b"{", json.dumps(group | {"node_type": "array"}).encode()):
        storage.put_bytes(place, damaged)
        assert list(faults_of_groups(store, 1)) == [0]
    storage.put_bytes(place, b"{}")
    assert faults_of_groups(store, 1)[0].endswith("view-00/zarr.json is damaged")
