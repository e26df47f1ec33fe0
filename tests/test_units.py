"""Units and their marks: what is left to do, and why."""

import dataclasses
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.errors import DataError
from milan_pipeline.manifest import Manifest, Shard
from milan_pipeline.units import Mark, Unit, list_units, marked_units, read_marks, undone_units

SHARDS = tuple(
    Shard(name=f"x-{number}.tar", samples=2, bytes=1, sha256=f"{number}", index_sha256="")
    for number in range(3)
)
UNITS = list_units(Manifest(kind="images", folder=".", shards=SHARDS), 2)


def mark_of(unit: Unit, identity_hash: str = "id") -> Mark:
    return Mark(
        shard=unit.shard.name,
        sha256=unit.shard.sha256,
        identity_hash=identity_hash,
        view=unit.view,
        n=1,
        skipped=[{"key": "k", "reason": "r"}],
        objects={"zarr.json": "00"},
    )


def put(store: Path, *marks: tuple[Unit, Mark]) -> None:
    for unit, mark in marks:
        storage.put_bytes(storage.join(str(store), unit.mark_path), mark.to_bytes())


def test_the_list_is_ordered_view_by_view() -> None:
    assert [unit.path for unit in UNITS] == [
        f"view-0{view}/x-{number}" for view in range(2) for number in range(3)
    ]


def test_units_spread_over_hash_tables() -> None:
    detailed = dataclasses.replace(SHARDS[0], details={"skipped": []})
    assert hash(Unit(0, detailed)) == hash(Unit(0, SHARDS[0]))
    assert len({hash(unit) for unit in UNITS}) == len(UNITS)


def test_what_is_left_and_why(tmp_path: Path) -> None:
    changed = dataclasses.replace(mark_of(UNITS[1]), sha256="another")
    put(
        tmp_path,
        (UNITS[0], mark_of(UNITS[0])),
        (UNITS[1], changed),
        (UNITS[2], mark_of(UNITS[2], "other")),
    )
    marks = read_marks(str(tmp_path), 2)
    assert marks[UNITS[0].mark_path] == mark_of(UNITS[0])
    assert undone_units(UNITS, marks, "id") == {
        UNITS[1]: "its image shard has changed",
        UNITS[2]: "it was extracted with other parameters",
        UNITS[3]: "not done yet",
        UNITS[4]: "not done yet",
        UNITS[5]: "not done yet",
    }


def test_marked_units_are_those_of_the_identity(tmp_path: Path) -> None:
    assert marked_units(str(tmp_path), "id") == []
    put(
        tmp_path,
        (UNITS[4], mark_of(UNITS[4])),
        (UNITS[0], mark_of(UNITS[0])),
        (UNITS[1], mark_of(UNITS[1], "other")),
    )
    found = marked_units(str(tmp_path), "id")
    assert [(unit.path, mark) for unit, mark in found] == [
        ("view-00/x-0", mark_of(UNITS[0])),
        ("view-01/x-1", mark_of(UNITS[4])),
    ]


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b"\xff", b'{"shard": "x"}'])
def test_a_damaged_mark_is_named(tmp_path: Path, damaged: bytes) -> None:
    storage.put_bytes(storage.join(str(tmp_path), UNITS[0].mark_path), damaged)
    with pytest.raises(DataError, match=r"done/view-00/x-0\.json is damaged"):
        read_marks(str(tmp_path), 1)
