"""Marks that are known are not read again, and one that has changed is."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.virtual_store import open_bucket
from milan_pipeline import storage
from milan_pipeline.shards.manifest import Shard
from milan_pipeline.targets.marks import known
from milan_pipeline.targets.marks.columns import BriefMark
from milan_pipeline.targets.units import Mark, Unit, read_marks, revoke
from tests.support.remote import noting, watched

MANY = 12


@pytest.fixture(autouse=True)
def _few_are_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "WORTH_KEEPING", MANY)


@pytest.fixture(params=["disk", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with open_bucket("known") as bucket:
        yield str(tmp_path) if request.param == "disk" else f"{bucket.url}/store"


def unit_of(number: int) -> Unit:
    return Unit(
        0, Shard(name=f"x-{number:02d}.tar", samples=2, bytes=1, sha256="5", index_sha256="")
    )


def mark_of(unit: Unit, n: int = 2) -> Mark:
    return Mark(
        shard=unit.shard.name, sha256="5", identity_hash="id", view=0, n=n,
        skipped=[{"key": "ä", "reason": "r"}], objects={"zarr.json": "00"}, source_unit="s",
    )  # fmt: skip


def write(store: str, units: range = range(MANY)) -> dict[str, BriefMark]:
    marks = {unit.mark_path: mark_of(unit) for unit in map(unit_of, units)}
    for path, mark in marks.items():
        storage.put_bytes(storage.join(store, path), mark.to_bytes())
    return {path: mark.brief() for path, mark in marks.items()}


def test_what_is_known_is_what_is_read(store: str) -> None:
    wanted = write(store)
    for keep in (True, False):
        assert read_marks(store, 1, keep=keep) == wanted
    assert storage.list_names(storage.join(store, "marks")) == ["view-00.bin"]


def test_a_mark_that_changed_is_read_again(store: str) -> None:
    wanted = write(store)
    read_marks(store, 1, keep=True)
    revoke(store, unit_of(3))
    storage.put_bytes(storage.join(store, unit_of(4).mark_path), mark_of(unit_of(4), 1).to_bytes())
    more = write(store, range(20, 21))
    found = read_marks(store, 1)
    assert found["done/view-00/x-03.json"].identity_hash == ""
    assert found["done/view-00/x-04.json"].n == 1
    assert found.keys() == wanted.keys() | more.keys()
    assert list(found) == sorted(found)


def test_a_mark_that_is_gone_is_not_known(tmp_path: Path) -> None:
    write(str(tmp_path))
    read_marks(str(tmp_path), 1, keep=True)
    (tmp_path / unit_of(5).mark_path).unlink()
    assert unit_of(5).mark_path not in read_marks(str(tmp_path), 1)


def test_what_is_damaged_is_read_anew(store: str) -> None:
    wanted = write(store)
    read_marks(store, 1, keep=True)
    place = storage.join(store, "marks", "view-00.bin")
    good = storage.read_bytes(place)
    for bad in (b"", b"3", good[:-9], good.replace(b"x-04", b"x-94"), b"1" + good[1:]):
        storage.put_bytes(place, bad)
        assert read_marks(store, 1) == wanted


def test_a_known_mark_costs_no_request() -> None:
    with open_bucket("known") as bucket:
        write(f"{bucket.url}/store")
        read_marks(f"{bucket.url}/store", 1, keep=True)
        bucket.forget()
        read_marks(f"{bucket.url}/store", 1)
        assert bucket.kinds == {"lists": 1, "gets": 1}


def test_few_marks_are_not_written_down(store: str) -> None:
    write(store, range(MANY - 1))
    read_marks(store, 1, keep=True)
    assert storage.list_names(storage.join(store, "marks")) == []


def test_a_name_that_is_not_utf8_is_known(tmp_path: Path) -> None:
    wanted = write(str(tmp_path))
    strange = dataclasses.replace(mark_of(unit_of(3)), shard="x-\udcff.tar")
    storage.put_bytes(storage.join(str(tmp_path), unit_of(3).mark_path), strange.to_bytes())
    wanted[unit_of(3).mark_path] = strange.brief()
    for keep in (True, False):
        assert read_marks(str(tmp_path), 1, keep=keep) == wanted


def test_a_store_without_tags_is_read_whole(tmp_path: Path) -> None:
    wanted = write(str(tmp_path))
    read_marks(watched(tmp_path), 1, keep=True)
    with noting("read") as reads:
        assert read_marks(watched(tmp_path), 1) == wanted
    assert sum("/done/" in request.path for request in reads) == MANY
