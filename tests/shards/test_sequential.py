"""Whole shards read in spans: every row once, in order, with few requests and bounded memory."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline import storage
from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.shards.index import index_table
from milan_pipeline.shards.sequential import Spans, read_rows
from milan_pipeline.shards.writer import Sample, write_shard
from tests.support.remote import Request, failing, noting, watched

PLACE = st.tuples(st.integers(0, 400), st.integers(0, 60))


SMALL = Spans(most=100, gap=10)


@pytest.fixture
def requests() -> Iterator[list[Request]]:
    """The reads that the remote store is asked for."""
    with noting("read") as asked:
        yield asked


def a_shard(url: str, places: list[tuple[int, int]], seed: int = 0):
    """Put a file of noise and return it with an index of some of its ranges."""
    size = max((offset + length for offset, length in places), default=0)
    data = np.random.Generator(np.random.PCG64(seed)).bytes(size)
    storage.put_bytes(url, data)
    rows = [
        (str(number), offset, length, xxhash.xxh3_64_intdigest(data[offset : offset + length]))
        for number, (offset, length) in enumerate(places)
    ]
    return (url, index_table(rows)), [data[o : o + n] for o, n in places]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.lists(PLACE, max_size=8), max_size=4), st.integers(0, 4), st.booleans())
def test_every_row_of_any_index_comes_in_order(
    indices: list[list[tuple[int, int]]], threads: int, sort: bool
) -> None:
    shards, expected = [], []
    for number, places in enumerate(indices):
        ordered = sorted(places) if sort else places
        shard, content = a_shard(f"memory://rows/{number}.tar", ordered, number)
        shards.append(shard)
        expected += [(number, row, data) for row, data in enumerate(content)]
    assert list(read_rows(iter(shards), threads=threads, spans=SMALL)) == expected


def test_a_shard_takes_one_request_a_span(tmp_path: Path, requests):
    folder = watched(tmp_path)
    samples = [Sample(f"k{i:02d}", {"jpg": bytes([i]) * 3000, "cls": b"1"}) for i in range(20)]
    shard = write_shard(folder, "x.tar", samples)
    table = np.load(io.BytesIO(storage.read_bytes(storage.join(folder, "x.index.npy"))))
    requests.clear()
    rows = list(read_rows([(storage.join(folder, "x.tar"), table)], spans=Spans(most=20_000)))
    assert [data for _, _, data in rows] == [sample.members["jpg"] for sample in samples]
    # 3000 bytes, padded, one header, and a .cls member of two blocks: 4608 bytes a sample.
    assert [request.length for request in requests] == [3 * 4608 + 3000] * 5
    assert shard.bytes > 20 * 4608


def test_what_lies_far_apart_or_is_large_is_asked_for_alone(tmp_path: Path, requests) -> None:
    places = [(0, 20), (30, 20), (61, 20), (81, 300), (381, 10), (0, 5)]
    shard, content = a_shard(watched(tmp_path / "x.tar"), places)
    assert [data for _, _, data in read_rows([shard], threads=0, spans=SMALL)] == content
    asked = [(request.start, request.length) for request in requests]
    assert asked == [(0, 50), (61, 20), (81, 300), (381, 10), (0, 5)]


def test_the_next_shards_are_under_way_but_not_too_many(tmp_path: Path, requests) -> None:
    taken = []

    def shards() -> Iterator[tuple[str, np.ndarray]]:
        for number in range(9):
            taken.append(number)
            yield a_shard(watched(tmp_path / f"{number}.tar"), [(0, 10), (20, 5)])[0]

    rows = read_rows(shards(), threads=2, spans=Spans(waiting=1))
    assert next(rows)[:2] == (0, 0)
    assert taken == [0, 1, 2]
    assert [row[0] for row in itertools.islice(rows, 2)] == [0, 1]
    assert taken == [0, 1, 2, 3]
    rows.close()
    assert len(requests) <= 4


@pytest.mark.parametrize("place", ["local", "memory"])
def test_damage_is_named_with_the_shard(place: str, tmp_path: Path) -> None:
    url = storage.join(str(tmp_path) if place == "local" else "memory://damage", "x.tar")
    shard, content = a_shard(url, [(0, 100), (150, 100)])
    good = storage.read_bytes(url)
    storage.put_bytes(url, good[:200] + b"?" + good[201:])
    rows = read_rows([shard])
    assert next(rows) == (0, 0, content[0])
    with pytest.raises(DataError, match=r"x\.tar is truncated or damaged: the 100 bytes at 150"):
        next(rows)
    storage.put_bytes(url, good[:-1])
    with pytest.raises(DataError, match=r"x\.tar is truncated or damaged: it ends before byte 250"):
        list(read_rows([shard]))


def test_a_missing_or_unreadable_shard_is_named(tmp_path: Path) -> None:
    (url, table), _ = a_shard(str(tmp_path / "x.tar"), [(0, 5)])
    with pytest.raises(MissingDataError, match="nowhere does not exist; the manifest lists it"):
        list(read_rows([(url, table), (str(tmp_path / "nowhere"), table)]))
    with pytest.raises(StorageError, match="cannot be read"):
        list(read_rows([(str(tmp_path), table)]))


def test_a_read_that_fails_for_a_while_is_tried_again(tmp_path: Path, waits) -> None:
    shard, content = a_shard(watched(tmp_path / "x.tar"), [(0, 50)])
    with failing("read", ConnectionError("gone"), TimeoutError()):
        assert list(read_rows([shard])) == [(0, 0, content[0])]
    assert len(waits) == 2
