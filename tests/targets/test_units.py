"""Units and their marks: what is left to do, and why."""

import dataclasses
import json
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.errors import DataError, MismatchError
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.targets.unit_list import undone_units
from milan_pipeline.targets.units import (
    REVOKED,
    Mark,
    Unit,
    read_mark,
    read_marks,
    require_same_images,
    revoked,
    unit_sha256,
    whole_mark,
    why_not_transcoded,
)
from tests.support.stores import SHARDS, UNITS


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


def test_units_spread_over_hash_tables() -> None:
    detailed = dataclasses.replace(SHARDS[0], details={"skipped": []})
    assert hash(Unit(0, detailed)) == hash(Unit(0, SHARDS[0]))
    assert len({hash(unit) for unit in UNITS}) == len(UNITS)


MANIFEST = Manifest(kind="images", folder=".", shards=SHARDS)


def test_other_images_under_the_same_names_are_refused() -> None:
    def marks(*changed: int) -> dict[str, Mark]:
        found = {unit.mark_path: mark_of(unit) for unit in UNITS[:3]}
        for number in changed:
            unit = UNITS[number]
            found[unit.mark_path] = dataclasses.replace(mark_of(unit), sha256="old")
        return found

    require_same_images("store", MANIFEST, {}, "remedy")
    require_same_images("store", MANIFEST, marks(0, 1), "remedy")
    with pytest.raises(MismatchError, match=r"other images: x-0\.tar has the sha256 old.*remedy"):
        require_same_images("store", MANIFEST, marks(0, 1, 2), "remedy")


def test_a_revoked_unit_is_not_done() -> None:
    marks = {UNITS[0].mark_path: revoked(UNITS[0])}
    assert undone_units(UNITS[:1], marks, "") == {UNITS[0]: REVOKED}


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b"\xff", b'{"shard": "x"}'])
def test_a_damaged_mark_is_named(tmp_path: Path, damaged: bytes) -> None:
    storage.put_bytes(storage.join(str(tmp_path), UNITS[0].mark_path), damaged)
    with pytest.raises(DataError, match=r"done/view-00/x-0\.json is damaged"):
        read_marks(str(tmp_path), 1)


def test_marks_without_their_objects(tmp_path: Path) -> None:
    put(tmp_path, *((unit, mark_of(unit)) for unit in UNITS))
    marks = read_marks(str(tmp_path), 2)
    assert marks == {unit.mark_path: mark_of(unit).brief() for unit in UNITS}
    assert undone_units(UNITS, marks, "id") == {}


def test_one_mark(tmp_path: Path) -> None:
    put(tmp_path, (UNITS[0], mark_of(UNITS[0])))
    assert read_mark(str(tmp_path), UNITS[0]) == mark_of(UNITS[0])
    assert read_mark(str(tmp_path), UNITS[1]) is None


def test_a_brief_mark_is_of_one_version_of_its_unit(tmp_path: Path) -> None:
    unit, mark = UNITS[0], mark_of(UNITS[0])
    put(tmp_path, (unit, mark))
    assert unit_sha256(mark.brief()) == unit_sha256(mark)
    assert whole_mark(str(tmp_path), unit, mark.brief()) == mark
    put(tmp_path, (unit, dataclasses.replace(mark, objects={"zarr.json": "1"})))
    with pytest.raises(MismatchError, match=r"x-0\.json has changed since this command began; run"):
        whole_mark(str(tmp_path), unit, mark.brief())
    assert whole_mark(str(tmp_path), unit, mark) is mark


def test_marks_of_a_store_that_is_no_local_folder() -> None:
    store = "memory://marks-of-a-store"
    for unit in UNITS:
        storage.put_bytes(storage.join(store, unit.mark_path), mark_of(unit).to_bytes())
    expected = {unit.mark_path: mark_of(unit).brief() for unit in UNITS}
    assert read_marks(store, 2) == expected


def test_a_transcoded_unit_is_stale_when_its_source_is_another() -> None:
    unit, source = UNITS[0], mark_of(UNITS[0])
    changed = dataclasses.replace(source, n=2)
    mark = dataclasses.replace(mark_of(unit, "new"), source_unit=unit_sha256(source))
    marks = {unit.mark_path: mark}
    assert why_not_transcoded(unit, marks, "new", source) is None
    assert "has changed" in str(why_not_transcoded(unit, marks, "new", changed))
    assert "other parameters" in str(why_not_transcoded(unit, marks, "newer", source))
    assert Mark(**json.loads(mark.to_bytes())) == mark
    assert b"source_unit" not in source.to_bytes()
