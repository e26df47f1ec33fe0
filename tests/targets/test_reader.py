"""Reading a unit: the values that were written, each object fetched once, damage never unseen."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from milan_pipeline import storage
from milan_pipeline.errors import DataError, StorageError
from milan_pipeline.storage.filesystems import resolve
from milan_pipeline.targets import layout, reader
from milan_pipeline.targets.reader import VerifiedObjects, open_unit
from tests.support.stores import ARRAYS, make_block, values_of, write

NAMES = (*ARRAYS, "scale")


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://units{tmp_path}"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each object is read."""
    counts: Counter[str] = Counter()
    real = storage.read_bytes

    def read_bytes(url: str, start: int = 0, length: int | None = None) -> bytes:
        counts[url] += 1
        return real(url, start, length)

    monkeypatch.setattr(storage, "read_bytes", read_bytes)
    return counts


def test_each_object_is_fetched_once(place: str, monkeypatch, fetched) -> None:
    monkeypatch.setattr(layout, "OUTER_SHARD", 4)
    block = make_block(11, codec="int8")
    unit, mark = write(place, block)
    fetched.clear()
    group = open_unit(place, unit, mark)
    assert values_of(group, "key").tolist() == block.key
    for name in NAMES:
        assert np.array_equal(values_of(group, name), getattr(block, name))
    codes = group["codes"]
    assert isinstance(codes, zarr.Array)
    for row in range(11):
        assert np.array_equal(codes[row], block.codes[row])
    assert fetched == {storage.join(place, unit.path, name): 1 for name in mark.objects}


def test_little_is_kept_in_memory(place: str, monkeypatch, fetched) -> None:
    monkeypatch.setattr(layout, "OUTER_SHARD", 4)
    monkeypatch.setattr(reader, "KEPT_BYTES", 1)
    block = make_block(8)
    unit, mark = write(place, block)
    codes = open_unit(place, unit, mark)["codes"]
    assert isinstance(codes, zarr.Array)
    fetched.clear()
    for row in (0, 1, 2, 4, 5, 0):
        assert np.array_equal(codes[row], block.codes[row])
    shards = [storage.join(place, unit.path, f"codes/c/{number}/0/0") for number in (0, 1)]
    assert fetched == {shards[0]: 2, shards[1]: 1}


def read_all(place: str, unit, mark) -> None:
    group = open_unit(place, unit, mark)
    for name in group.array_keys():
        values_of(group, name)


def test_a_damaged_or_missing_object_is_named(place: str) -> None:
    unit, mark = write(place, make_block(3, codec="int8"))
    for name in mark.objects:
        url = storage.join(place, unit.path, name)
        good = storage.read_bytes(url)
        for position in range(0, len(good), max(1, len(good) // 5)):
            damaged = bytearray(good)
            damaged[position] ^= 1 << position % 8
            storage.put_bytes(url, bytes(damaged))
            with pytest.raises(DataError, match=f"{name} is damaged; delete .*x.json and run"):
                read_all(place, unit, mark)
        storage.put_bytes(url, good[:-1])
        with pytest.raises(DataError, match=f"{name} is damaged"):
            read_all(place, unit, mark)
        file = resolve(url)
        file.filesystem.rm(file.path)
        with pytest.raises(DataError, match=f"{name} is missing; delete .*x.json and run"):
            read_all(place, unit, mark)
        storage.put_bytes(url, good)
    read_all(place, unit, mark)


def test_a_sample_of_a_damaged_outer_shard_is_not_handed_out(place: str) -> None:
    unit, mark = write(place, make_block(3))
    url = storage.join(place, unit.path, "codes/c/0/0/0")
    good = storage.read_bytes(url)
    storage.put_bytes(url, good[:-1] + bytes([good[-1] ^ 1]))
    codes = open_unit(place, unit, mark)["codes"]
    assert isinstance(codes, zarr.Array)
    for row in range(3):
        with pytest.raises(DataError, match="codes/c/0/0/0 is damaged"):
            codes[row]


@pytest.mark.parametrize(
    "name", ["codes/c/0/0/0", "prior/c/0/0", "key/c/0", "zarr.json", "codes/zarr.json"]
)
def test_what_a_mark_leaves_out_is_missing_and_not_zero(place: str, name: str) -> None:
    unit, mark = write(place, make_block(3))
    objects = {path: digest for path, digest in mark.objects.items() if path != name}
    with pytest.raises(DataError, match=f"{name} is missing"):
        read_all(place, unit, dataclasses.replace(mark, objects=objects))


def test_a_unit_without_samples(place: str) -> None:
    unit, mark = write(place, make_block(0))
    group = open_unit(place, unit, mark)
    assert sorted(group.array_keys()) == sorted([*ARRAYS, "key"])
    assert values_of(group, "codes").shape == (0, 5, 6)


def test_a_store_that_is_away_for_a_while(place: str, monkeypatch, waits) -> None:
    block = make_block(3)
    unit, mark = write("memory://away", block)
    filesystem = resolve("memory://away").filesystem
    answers: list[Exception] = [ConnectionError("gone"), TimeoutError()]
    real = type(filesystem).cat_file

    def cat_file(self, *args, **kwargs):
        if answers:
            raise answers.pop(0)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(filesystem), "cat_file", cat_file)
    assert np.array_equal(values_of(open_unit("memory://away", unit, mark), "codes"), block.codes)
    assert len(waits) == 2
    answers += [PermissionError("no")]
    with pytest.raises(StorageError, match=r"zarr\.json cannot be read"):
        open_unit("memory://away", unit, mark)


def test_parts_of_an_object_and_writing_refused(tmp_path: Path) -> None:
    unit, mark = write(tmp_path, make_block(3))
    objects = VerifiedObjects(str(tmp_path / unit.path), mark.objects, remedy="")
    prototype = default_buffer_prototype()
    whole = (tmp_path / unit.path / "zarr.json").read_bytes()
    requests = [
        (None, whole),
        (RangeByteRequest(2, 7), whole[2:7]),
        (OffsetByteRequest(5), whole[5:]),
        (SuffixByteRequest(4), whole[-4:]),
        (SuffixByteRequest(0), b""),
    ]
    asked = [("zarr.json", request) for request, _ in requests]
    found = sync(objects.get_partial_values(prototype, asked))
    assert [part.to_bytes() for part in found if part is not None] == [data for _, data in requests]
    assert sync(objects.get("nothing", prototype)) is None
    assert sync(objects.exists("codes/zarr.json"))
    assert not sync(objects.exists("nothing"))
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(objects, mode="r").create_group("x")
    with pytest.raises(ValueError, match="read-only"):
        sync(objects.delete("zarr.json"))


def test_listing(tmp_path: Path) -> None:
    unit, mark = write(tmp_path, make_block(3))
    objects = VerifiedObjects(str(tmp_path / unit.path), mark.objects, remedy="")

    async def collected(names) -> list[str]:
        return [name async for name in names]

    assert sync(collected(objects.list())) == list(mark.objects)
    assert sync(collected(objects.list_dir("codes"))) == ["c", "zarr.json"]
    assert sync(collected(objects.list_dir(""))) == [*sorted([*ARRAYS, "key"]), "zarr.json"]
    assert sync(collected(objects.list_prefix("codes/c"))) == ["codes/c/0/0/0"]
