"""What lies in a store and nobody reads; groups that should be there. On disks and elsewhere."""

import json
import uuid
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.targets.verification_work import extra_objects, extra_units, faults_of_groups
from tests.support.stores import make_block, write


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else f"memory://{uuid.uuid4().hex}"


def test_a_fresh_store_has_nothing_extra(store: str) -> None:
    unit, mark = write(store, make_block(300))
    assert extra_objects(store, unit, mark) == 0
    assert extra_units(store, [unit], 1) == 0
    assert faults_of_groups(store, 1) == {}


def test_strangers_are_counted(store: str) -> None:
    unit, mark = write(store, make_block(300))
    for path in ("codes/c/7/0/0", "codes/other", "new/zarr.json"):
        storage.put_bytes(storage.join(store, unit.path, path), b"x")
    assert extra_objects(store, unit, mark) == 3
    storage.put_bytes(storage.join(store, "view-00", "stranger", "zarr.json"), b"x")
    assert extra_units(store, [unit], 1) == 1
    assert extra_units(store, [], 1) == 2


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
