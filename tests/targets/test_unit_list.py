"""The list of units, and what of it is finished or left, agree with what each mark says."""

import dataclasses
import json
from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.targets.unit_list import (
    FinishedUnits,
    UnitList,
    extent_of,
    undone_units,
    units_of_extent,
)
from milan_pipeline.targets.units import REVOKED, Mark, Unit, read_marks, revoked
from tests.support.stores import SHARDS, UNITS

MANIFEST = Manifest(kind="images", folder=".", shards=SHARDS)


def mark_of(unit: Unit, identity_hash: str = "id") -> Mark:
    return Mark(
        shard=unit.shard.name, sha256=unit.shard.sha256, identity_hash=identity_hash,
        view=unit.view, n=1, skipped=[{"key": "k", "reason": "r"}] if unit.view else [],
        objects={"zarr.json": "00"},
    )  # fmt: skip


def put(store: Path, *marks: tuple[Unit, Mark]) -> None:
    for unit, mark in marks:
        storage.put_bytes(storage.join(str(store), unit.mark_path), mark.to_bytes())


def test_the_list_is_ordered_view_by_view() -> None:
    paths = [f"view-0{view}/x-{number}" for view in range(2) for number in range(3)]
    assert [unit.path for unit in UNITS] == paths
    assert [UNITS[number].path for number in range(-6, 0)] == paths
    assert [unit.path for unit in UNITS[1::2]] == paths[1::2]


def test_what_is_left_and_why(tmp_path: Path) -> None:
    changed = dataclasses.replace(mark_of(UNITS[1]), sha256="another")
    put(
        tmp_path,
        (UNITS[0], mark_of(UNITS[0])),
        (UNITS[1], changed),
        (UNITS[2], mark_of(UNITS[2], "other")),
        (UNITS[3], revoked(UNITS[3])),
        (UNITS[5], mark_of(UNITS[5])),
    )
    marks = read_marks(str(tmp_path), 2)
    assert marks[UNITS[0].mark_path] == mark_of(UNITS[0]).brief()
    left = {
        UNITS[1]: "its image shard has changed",
        UNITS[2]: "it was extracted with other parameters",
        UNITS[3]: REVOKED,
        UNITS[4]: "not done yet",
    }
    assert undone_units(UNITS, marks, "id") == left
    assert list(undone_units(UNITS, marks, "id")) == list(left)
    assert undone_units(list(UNITS), dict(marks), "id") == left
    finished = FinishedUnits(UNITS, marks, "id")
    assert list(finished) == [(unit, mark_of(unit).brief()) for unit in (UNITS[0], UNITS[5])]
    assert finished[1:] == list(finished)[1:]
    assert list(finished.incomplete()) == [finished[1]]
    assert finished.samples == 2


def test_no_unit_is_done_of_no_identity(tmp_path: Path) -> None:
    put(tmp_path, (UNITS[0], revoked(UNITS[0])), (UNITS[1], mark_of(UNITS[1])))
    marks = read_marks(str(tmp_path), 1)
    reasons = list(undone_units(UnitList(SHARDS, 1), marks, "").values())
    assert reasons == [REVOKED, "it was extracted with other parameters", "not done yet"]
    assert not FinishedUnits(UNITS, marks, "")


def test_shards_may_come_in_any_order(tmp_path: Path) -> None:
    put(tmp_path, *((unit, mark_of(unit)) for unit in UNITS))
    marks, backwards = read_marks(str(tmp_path), 2), UnitList(SHARDS[::-1], 2)
    assert undone_units(backwards, marks, "id") == {}
    assert [mark.shard for _, mark in FinishedUnits(backwards, marks, "id")] == [
        unit.shard.name for unit in backwards
    ]


def test_the_list_of_units_is_rebuilt_from_the_record() -> None:
    extent = json.loads(json.dumps(extent_of(MANIFEST, 2)))
    rebuilt = units_of_extent(extent, 2)
    assert [unit.mark_path for unit in rebuilt] == [unit.mark_path for unit in UNITS]
    assert [unit.shard.samples for unit in rebuilt] == [2] * 6
    assert undone_units(rebuilt, {unit.mark_path: mark_of(unit) for unit in UNITS}, "id") == {}
    assert len(units_of_extent(extent, 1)) == 3
