"""Reading a unit: the values that were written, each object fetched once, damage never unseen."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from milan_pipeline import storage
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.errors import DataError, StorageError
from milan_pipeline.images.views import Box
from milan_pipeline.storage.filesystems import resolve
from milan_pipeline.targets.layout import OUTER_SHARD
from milan_pipeline.targets.reader import StoredUnit, open_unit
from milan_pipeline.targets.stored_codes import codes_of, decoded_targets
from milan_pipeline.targets.verified_objects import VerifiedObjects
from tests.support.remote import Request, failing, noting, watched
from tests.support.stores import ARRAYS, make_block, write

NAMES = (*ARRAYS, "scale")


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://units{tmp_path}"


@pytest.fixture
def reads() -> Iterator[list[Request]]:
    """What is read from the remote store."""
    with noting("read") as noted:
        yield noted


def test_each_object_is_fetched_once(tmp_path: Path, reads: list[Request]) -> None:
    place, rows = watched(tmp_path), 2 * OUTER_SHARD + 3
    block = make_block(rows, codec="int8")
    unit, mark = write(place, block)
    reads.clear()
    stored = open_unit(place, unit, mark)
    assert stored.values("key").tolist() == block.key
    for name in NAMES:
        assert np.array_equal(stored.values(name), getattr(block, name))
    codes = stored.array("codes")
    for row in range(0, rows, 7):
        assert np.array_equal(codes[row], block.codes[row])
    folder = tmp_path / unit.path
    assert Counter(request.path for request in reads) == {
        str(folder / name): 1 for name in mark.objects
    }


def test_little_is_kept_in_memory(tmp_path: Path, reads: list[Request]) -> None:
    block, second = make_block(2 * OUTER_SHARD), OUTER_SHARD
    unit, mark = write(tmp_path, block)
    folder = tmp_path / unit.path
    objects = VerifiedObjects(watched(folder), mark.objects, remedy="", kept_bytes=1)
    codes = StoredUnit(zarr.open_group(objects, mode="r", zarr_format=3)).array("codes")
    reads.clear()
    for row in (0, 1, second - 1, second, second + 1, 0):
        assert np.array_equal(codes[row], block.codes[row])
    assert [request.path for request in reads] == [
        str(folder / f"codes/c/{number}/0/0") for number in (0, 1, 0)
    ]


def read_all(place: str, unit, mark) -> None:
    stored = open_unit(place, unit, mark)
    for name in stored.names:
        stored.values(name)


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
    codes = open_unit(place, unit, mark).array("codes")
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
    stored = open_unit(place, unit, mark)
    assert sorted(stored.names) == sorted([*ARRAYS, "key"])
    assert stored.values("codes").shape == (0, 5, 6)


def test_a_store_that_is_away_for_a_while(tmp_path: Path, waits) -> None:
    block, place = make_block(3), watched(tmp_path)
    unit, mark = write(place, block)
    with failing("read", ConnectionError("gone"), TimeoutError()):
        assert np.array_equal(open_unit(place, unit, mark).values("codes"), block.codes)
    assert len(waits) == 2
    with (
        failing("read", PermissionError("no")),
        pytest.raises(StorageError, match=r"zarr\.json cannot be read"),
    ):
        open_unit(place, unit, mark)


def test_rows_of_a_unit(tmp_path: Path) -> None:
    block = make_block(7, codec="int8")
    block.box[:] = (1, 2, 3, 4)
    block.flip[2] = True
    stored = open_unit(str(tmp_path), *write(tmp_path, block))
    assert stored.samples == 7
    for rows in (range(2, 5), range(7), [2, 3, 6], [6], []):
        chosen = list(rows)
        codes, scale = codes_of(stored, rows)
        assert np.array_equal(codes, block.codes[chosen])
        assert scale is not None
        assert block.scale is not None
        assert np.array_equal(scale, block.scale[chosen])
        assert stored.keys(rows) == [block.key[row] for row in chosen]
        assert np.array_equal(stored.prior(rows), block.prior[chosen])
        assert stored.boxes(rows) == [Box(1, 2, 3, 4, bool(block.flip[row])) for row in chosen]
    tokens = decoded_targets(stored, make_codec("int8"), [2, 6])
    assert np.array_equal(tokens, make_codec("int8").decode(*codes_of(stored))[[2, 6]])
