"""Pairs come verified and in order, from local files, from remote stores and through the cache."""

import itertools
import threading

import pytest

from milan_pipeline.data.pairs import read_pairs
from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.random_access import READ_AHEAD
from milan_pipeline.storage.retries import TRIES
from tests.support.pairs import EXPECTED, places, write_world
from tests.support.remote import answering, failing, noting, watched


def read(pairs, cache=None):
    return [(pair.image, *pair.targets) for pair in read_pairs(pairs, places(), cache)]


@pytest.fixture
def remote(tmp_path):
    return write_world(watched(tmp_path / "pairs"))


@pytest.fixture
def cache(tmp_path):
    return CacheConfig(folder=tmp_path / "cache", max_bytes=100_000_000)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["local", "remote"])
def test_pairs_come_in_order(kind, cached, tmp_path, remote, cache):
    pairs = remote if kind == "remote" else write_world(str(tmp_path / "shards"))
    for _ in range(2):
        assert read(pairs, cache if cached else None) == EXPECTED
    assert len(list(cache.folder.glob("*.piece"))) == (2 if cached else 0)


def test_what_is_cached_is_not_read_again(remote, cache):
    read(remote, cache)
    with noting("read") as reads:
        assert read(remote, cache) == EXPECTED
    assert reads == []


def test_a_damaged_piece_is_fetched_once_more(remote, cache):
    read(remote, cache)
    for piece in cache.folder.glob("*.piece"):
        piece.write_bytes(bytes(piece.stat().st_size))
    assert read(remote, cache) == EXPECTED


def test_a_damaged_source_is_named_even_behind_a_cache(remote, cache, tmp_path):
    shard = tmp_path / "pairs/x.tar"
    shard.write_bytes(shard.read_bytes().replace(b"image j", b"image !"))
    for config in (None, cache):
        with pytest.raises(DataError, match=r"pairs/x\.tar is truncated or damaged"):
            read(remote, config)


def test_a_remote_shard_that_is_gone_is_named_with_a_remedy(remote, cache, tmp_path):
    (tmp_path / "pairs/x.tar").unlink()
    for config in (None, cache):
        with pytest.raises(MissingDataError, match=r"pairs/x\.tar does not exist; the manifest li"):
            read(remote, config)


def test_reads_of_a_remote_store_run_ahead_and_together(remote):
    """The first read returns only after two others have begun; no more than the bound begin."""
    begun = threading.Semaphore(0)
    started = []

    def together(request, action):
        if request.path.endswith(".index.npy"):  # read once, before the rest
            return action()
        started.append(request)
        begun.release()
        if len(started) == 1:
            for _ in range(3):
                assert begun.acquire(timeout=20)
        return action()

    with answering(together):
        reading = read_pairs(remote, (place for _ in range(READ_AHEAD) for place in places()))
        first = next(reading)
        assert (first.image, *first.targets) == EXPECTED[0]
        reading.close()
    assert len(started) <= 2 * READ_AHEAD


def test_a_store_that_fails_now_and_then_gives_the_same_pairs(remote, waits):
    calls = itertools.count(1)

    def now_and_then(_, action):
        if next(calls) % 3 == 0:
            raise ConnectionResetError("reset by peer")
        return action()

    with answering(now_and_then):
        assert read(remote) == EXPECTED
    assert waits


def test_a_store_that_is_gone_is_named(remote):
    with (
        failing("read", *[TimeoutError()] * 1000),
        pytest.raises(StorageError, match=rf"pairs/x\.index\.npy cannot be read: {TRIES} tries"),
    ):
        read(remote)


def test_manifests_say_what_the_cache_needs(tmp_path):
    pairs = write_world(str(tmp_path))
    image, _ = pairs.files(0, 0)
    assert image.bytes == (tmp_path / "x.tar").stat().st_size
    assert len(image.sha256) == 64
    assert image.url == str(tmp_path / "x.tar")
