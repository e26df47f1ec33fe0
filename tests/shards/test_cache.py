"""Pieces of shards: read once, never above the cap, never of another shard, whoever is killed."""

import errno
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.errors import ConfigError, MissingDataError, StorageError
from milan_pipeline.shards.cache import CacheConfig, ShardCache, ShardFile
from tests.support.remote import noting, watched

PIECE = 100
DATA = np.random.Generator(np.random.PCG64(0)).bytes(1234)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def source(tmp_path):
    """A shard, and the list of reads from it."""
    path = tmp_path / "x.tar"
    path.write_bytes(DATA)
    with noting("read") as reads:
        yield ShardFile(watched(path), len(DATA), "sha"), reads


def starts(reads):
    return [request.start for request in reads]


def open_cache(tmp_path, cap=500):
    config = CacheConfig(folder=tmp_path / "cache", max_bytes=cap, piece_bytes=PIECE)
    return ShardCache(config)


def held(tmp_path):
    return sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.piece*"))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1234), st.integers(0, 400)), max_size=12))
def test_any_ranges_are_the_sources_and_the_cap_holds(tmp_path_factory, ranges):
    folder = tmp_path_factory.mktemp("c")
    (folder / "x.tar").write_bytes(DATA)
    file, cache = ShardFile(str(folder / "x.tar"), len(DATA), "sha"), open_cache(folder, 500)
    for start, wanted in ranges:
        length = min(wanted, len(DATA) - start)
        assert cache.read(file, start, length) == DATA[start : start + length]
        assert held(folder) <= 500


def test_a_piece_is_read_once_by_all_who_share_the_folder(tmp_path, source):
    file, reads = source
    for _ in range(3):
        assert open_cache(tmp_path).read(file, 150, 100) == DATA[150:250]
    assert starts(reads) == [100, 200]
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_what_was_used_last_is_evicted_last(tmp_path, source):
    file, reads = source
    cache = open_cache(tmp_path, 500)
    for number, piece in enumerate((0, 1, 2, 3, 4)):
        cache.read(file, piece * PIECE, 1)
        used(cache, file, piece, number)
    cache.read(file, 0, 1)  # used again, hence newer than the others
    cache.read(file, 5 * PIECE, 1)
    reads.clear()
    cache.read(file, 0, 1)
    cache.read(file, 4 * PIECE, 1)
    assert reads == []
    cache.read(file, PIECE, 1)
    assert starts(reads) == [PIECE]


def used(cache, file, piece, seconds):
    """Say when a piece was used, in place of a sleep."""
    os.utime(cache.path_of(file, piece), (seconds, seconds))


def test_a_changed_shard_never_meets_old_pieces(tmp_path, source):
    file, _ = source
    cache = open_cache(tmp_path)
    cache.read(file, 0, 50)
    changed = DATA[::-1]
    (tmp_path / "x.tar").write_bytes(changed)
    assert cache.read(file._replace(sha256="other"), 0, 50) == changed[:50]


def test_a_dropped_or_torn_piece_is_fetched_again(tmp_path, source):
    file, reads = source
    cache = open_cache(tmp_path)
    cache.read(file, 0, 50)
    cache.drop(file, 0, 150)
    assert cache.read(file, 0, 50) == DATA[:50]
    next((tmp_path / "cache").glob("*.piece")).write_bytes(b"torn")
    assert cache.read(file, 0, 50) == DATA[:50]
    assert starts(reads) == [0, 0, 0]


def test_threads_fetch_a_piece_once(tmp_path, source):
    file, reads = source
    cache = open_cache(tmp_path)
    together = threading.Barrier(8)

    def read(_):
        together.wait()
        return cache.read(file, 310, 20)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(8))) == {DATA[310:330]}
    assert starts(reads) == [300]


def test_leftovers_of_the_killed_do_no_harm(tmp_path, source):
    """A half-written temporary, an empty lock and a count that is too high."""
    file, _ = source
    cache = open_cache(tmp_path, 500)
    for count in (b"", b"499", b"rubbish"):
        (tmp_path / "cache" / ".piece.tmp").write_bytes(bytes(77))
        (tmp_path / "cache" / ".lock").write_bytes(count)
        for piece in range(12):
            assert cache.read(file, piece * PIECE, 30) == DATA[piece * PIECE :][:30]
            assert held(tmp_path) <= 500
        assert not (tmp_path / "cache" / ".piece.tmp").exists()


def read_much(folder, file, seed, wrong):
    cache = open_cache(folder, 300)
    random = np.random.Generator(np.random.PCG64(seed))
    for start in random.integers(0, len(DATA) - 60, 150).tolist():
        if cache.read(file, start, 60) != DATA[start : start + 60]:
            wrong.put(f"bytes at {start}")
    wrong.put(None)


def test_processes_share_a_folder_and_its_cap(tmp_path, source):
    file, _ = source
    wrong = FORK.SimpleQueue()
    processes = [
        FORK.Process(target=read_much, args=(tmp_path, file, seed, wrong)) for seed in range(3)
    ]
    for process in processes:
        process.start()
    found = [wrong.get() for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert found == [None] * 3
    assert held(tmp_path) <= 300


def test_a_folder_that_cannot_be_written_is_named(tmp_path, source):
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(StorageError, match=r"--cache .*/cache cannot be used \(File exists\)"):
        open_cache(tmp_path)


def test_a_full_disk_is_named(tmp_path, source):
    file, _ = source
    cache = open_cache(tmp_path)
    cache.read(file, 0, 10)
    (tmp_path / "cache" / ".piece.tmp").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"--cache .* \(No space left on device\); make room"):
        cache.read(file, PIECE, 10)


def test_errors_of_the_source_are_its_own(tmp_path, source):
    cache = open_cache(tmp_path)
    with pytest.raises(MissingDataError, match="nowhere does not exist"):
        cache.read(ShardFile("nowhere", 10, "sha"), 0, 5)
    with pytest.raises(StorageError, match=r"x\.tar ends 3 bytes early"):
        cache.read(source[0], len(DATA) - 2, 5)


def test_a_cap_below_two_pieces_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--cache-gb of 199 bytes is less than two pieces of 100"):
        open_cache(tmp_path, 199)


def test_a_piece_of_another_user_is_read_all_the_same(tmp_path, source, monkeypatch):
    file, reads = source
    cache = open_cache(tmp_path)
    cache.read(file, 0, 10)

    def refuse(_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.read(file, 5, 10) == DATA[5:15]
    assert starts(reads) == [0]


def test_a_folder_on_a_file_system_without_locks_is_said_to_be_that(tmp_path, source, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    file, _ = source
    with pytest.raises(StorageError, match=r"system without locks .*; name a folder on a disk of"):
        open_cache(tmp_path).read(file, 0, 10)
