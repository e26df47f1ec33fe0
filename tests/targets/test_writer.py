"""Writing a unit: what zarr itself would write, which mark is revoked, what comes last."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.errors import StorageError
from milan_pipeline.shards.manifest import Shard
from milan_pipeline.targets.layout import (
    OUTER_SHARD,
    SMALL_CHUNK_BYTES,
    UnitBlock,
    create_codes,
    create_small_array,
)
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.units import Mark, Unit, read_mark, revoked, why_undone
from milan_pipeline.targets.writer import PUT_THREADS, UnitWriter
from tests.support.remote import Action, Request, answering, noting, watched
from tests.support.stores import files_of, make_block, rows_of


def unit_of(count: int, sha256: str = "5") -> Unit:
    return Unit(0, Shard(name="x.tar", samples=count, bytes=0, sha256=sha256, index_sha256=""))


def writer_of(
    store: Path | str, unit: Unit, identity_hash: str = "id", shape: tuple[int, int] = (5, 6)
) -> UnitWriter:
    codec = make_codec("int8")
    return UnitWriter(str(store), unit, identity_hash=identity_hash, codec=codec, shape=shape)


def write(store: Path | str, block: UnitBlock) -> tuple[Unit, Mark]:
    unit = unit_of(len(block.key))
    writer = writer_of(store, unit, shape=block.codes.shape[1:])
    writer.add(block)
    return unit, writer.finish([])


@pytest.mark.parametrize("count", [3, 256, 300, 700])
def test_arrays_are_what_zarr_writes(tmp_path: Path, count: int) -> None:
    block = make_block(count, codec="int8")
    unit, mark = write(tmp_path / "ours", block)
    group = zarr.create_group(str(tmp_path / "plain"), zarr_format=3)
    create_codes(group, count, (5, 6), np.dtype("i1"))[:] = block.codes
    for name in ("scale", "prior", "box", "flip", "size", "digest"):
        values = getattr(block, name)
        create_small_array(group, name, values.shape, values.dtype)[:] = values
    create_small_array(group, "key", (count,), str)[:] = np.array(block.key, dtype=object)
    assert files_of(tmp_path / "ours" / unit.path) == files_of(tmp_path / "plain")
    assert set(mark.objects) == set(files_of(tmp_path / "plain"))


def test_small_arrays_are_one_object_each(tmp_path: Path) -> None:
    _, mark = write(tmp_path, make_block(700, codec="int8"))
    chunks = [path for path in mark.objects if "/c/" in path and not path.startswith("codes/")]
    assert sorted(path.split("/")[0] for path in chunks) == sorted(
        ["scale", "prior", "box", "flip", "size", "digest", "key"]
    )


def test_large_ones_are_several(tmp_path: Path) -> None:
    block = make_block(5, codec="int8", patches=SMALL_CHUNK_BYTES // 4 // 2, width=1)
    unit, mark = write(tmp_path, block)
    prior = sorted(path for path in mark.objects if path.startswith("prior/c/"))
    assert prior == ["prior/c/0/0", "prior/c/1/0", "prior/c/2/0"]  # two rows of float32 in each
    assert np.array_equal(open_unit(str(tmp_path), unit, mark).values("prior"), block.prior)


def test_a_current_mark_is_left_alone(tmp_path: Path) -> None:
    block = make_block(9, codec="int8")
    unit, mark = write(tmp_path, block)
    before = files_of(tmp_path)
    writer = writer_of(tmp_path, unit)
    writer.add(rows_of(block, 0, 5))
    assert read_mark(str(tmp_path), unit) == mark
    open_unit(str(tmp_path), unit, mark)
    writer.add(rows_of(block, 5, 9))
    assert writer.finish([]) == mark
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "changed",
    [{"identity_hash": "other"}, {"sha256": "6"}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_stale_mark_is_revoked_before_anything_is_written(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    unit, _ = write(tmp_path, make_block(9, codec="int8"))
    unit = unit_of(9, changed.get("sha256", "5"))
    writer_of(tmp_path, unit, changed.get("identity_hash", "id"))
    assert read_mark(str(tmp_path), unit) == revoked(unit)
    assert why_undone(unit, {unit.mark_path: revoked(unit)}, "id") is not None


class Puts:
    """Answers a remote store's puts: notes the order, holds some, fails some."""

    def __init__(self, fail: str = "") -> None:
        self.order: list[str] = []
        self.most = 0
        self._fail = fail
        self._running = 0
        self._lock = threading.Lock()
        self._together = threading.Barrier(PUT_THREADS, timeout=30)

    def __call__(self, request: Request, action: Action) -> Any:
        if request.doing != "put":
            return action()
        with self._counted():
            if "/codes/c/" in request.path:  # each waits until a thread has begun the others
                self._together.wait()
            if self._fail and self._fail in request.path:
                raise PermissionError("no")
            self.order.append(request.path)
            return action()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


def test_a_remote_store_gets_some_objects_at_a_time_and_the_mark_last(tmp_path: Path) -> None:
    block = make_block(OUTER_SHARD * PUT_THREADS, codec="int8")
    unit, mark = write(tmp_path / "local", block)
    puts, folder = Puts(), tmp_path / "remote"
    url = watched(folder)
    with answering(puts):
        assert write(url, block)[1] == mark
    assert puts.most == PUT_THREADS
    assert puts.order[-1].endswith(unit.mark_path)
    places = {place: puts.order.index(f"{folder}/{unit.path}/{place}") for place in mark.objects}
    chunks = [at for place, at in places.items() if "/c/" in place]
    metadata = [at for place, at in places.items() if place.endswith("zarr.json")]
    assert max(chunks) < min(metadata)
    assert np.array_equal(open_unit(url, unit, mark).values("codes"), block.codes)


@pytest.mark.parametrize("place", ["codes/c/1/", "prior/c/", "size/zarr.json"])
def test_without_one_object_there_is_no_mark(tmp_path: Path, place: str) -> None:
    url, rows = watched(tmp_path), OUTER_SHARD * PUT_THREADS
    with (
        answering(Puts(fail=place)),
        pytest.raises(StorageError, match="cannot be written"),
    ):
        write(url, make_block(rows, codec="int8"))
    assert read_mark(url, unit_of(rows)) is None


def test_a_block_may_be_changed_once_it_is_added(tmp_path: Path) -> None:
    block = make_block(9, codec="int8")
    codes: Any = block.codes.copy()
    unit = unit_of(9)
    writer = writer_of(tmp_path, unit)
    writer.add(block)
    block.codes[:] = 0
    mark = writer.finish([])
    assert np.array_equal(open_unit(str(tmp_path), unit, mark).values("codes"), codes)


def test_codes_are_let_go_once_they_are_gathered(tmp_path: Path) -> None:
    block = make_block(3, codec="int8")
    codes = weakref.ref(block.codes)
    writer = writer_of(tmp_path, unit_of(3))
    writer.add(block)
    del block
    assert codes() is None
    assert writer.finish([]).n == 3


def test_a_mark_of_another_source_is_revoked(tmp_path: Path) -> None:
    """Its objects may be others, although the store and the image shard are the same."""
    block, codec, unit = make_block(3, codec="int8"), make_codec("int8"), unit_of(3)
    for source, known in (("a", None), ("a", "a"), ("b", "")):
        writer = UnitWriter(
            str(tmp_path), unit, identity_hash="id", codec=codec, shape=(5, 6), source_unit=source
        )
        before = read_mark(str(tmp_path), unit)
        assert (before and (before.source_unit or "")) == known
        writer.add(block)
        assert writer.finish([]).source_unit == source


def test_the_group_of_a_view_is_written_once(tmp_path: Path) -> None:
    """Some object stores take one write a second of a name."""
    group = tmp_path / "view-00" / "zarr.json"
    with noting("put") as puts:
        for _ in range(3):
            write(watched(tmp_path), make_block(3, codec="int8"))
        assert [request.path for request in puts].count(str(group)) == 1
        group.write_bytes(b"damaged")
        write(watched(tmp_path), make_block(3, codec="int8"))
        assert [request.path for request in puts].count(str(group)) == 2
