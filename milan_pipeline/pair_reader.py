"""Read the bytes of pairs in order: at once from local files, ahead in threads from elsewhere."""

import contextlib
import functools
from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

from milan_pipeline import storage
from milan_pipeline.errors import DataError
from milan_pipeline.pairs import PairTable, ShardPairs
from milan_pipeline.parallel import ordered_map
from milan_pipeline.shard_cache import CacheConfig, ShardCache, ShardFile
from milan_pipeline.shards import SampleReader, checked

READ_THREADS = 16
READ_AHEAD = 64  # pairs, which bounds the memory that they wait in: about 10 MB


class Place(NamedTuple):
    """A pair's place in the table, and the epoch that it is read for."""

    epoch: int
    view: int
    shard: int
    pair: int


class RawPair(NamedTuple):
    """What lies in the shards, verified."""

    place: Place
    image: bytes
    target: bytes


class _Read(Protocol):
    def __call__(self, file: ShardFile, offset: int, length: int, digest: int, /) -> bytes: ...


def read_pairs(
    pairs: PairTable, places: Iterator[Place], cache: CacheConfig | None = None
) -> Generator[RawPair, None, None]:
    """Yield the pairs at some places, in order.

    Local files are read when their turn comes, since the system reads ahead in them; remote ones,
    and all where there is a cache, are read ahead by `READ_THREADS` threads.

    Args:
        pairs: what there is.
        places: consumed lazily, at most `READ_AHEAD` in advance.
        cache: keeps what was read; None reads from the source.

    Raises:
        DataError: bytes are not what the index says.
        MissingDataError: a shard does not exist.
        StorageError: a shard cannot be read or the cache cannot be written.
    """
    if cache is None and _all_local(pairs):
        with contextlib.closing(SampleReader()) as reader:
            for place in places:
                yield _pair(pairs, place, lambda file, *at: reader.read(file.url, *at))
        return
    read = _uncached if cache is None else functools.partial(_through, ShardCache(cache))
    ahead = ordered_map(
        lambda place: _pair(pairs, place, read), places, workers=READ_THREADS, ahead=READ_AHEAD
    )
    with contextlib.closing(ahead):
        yield from ahead


def _pair(pairs: PairTable, place: Place, read: _Read) -> RawPair:
    shard: ShardPairs = pairs.views[place.view][place.shard]
    image = read(shard.image_file, *shard.image_rows[place.pair].tolist())
    target = read(shard.target_file, *shard.target_rows[place.pair].tolist())
    return RawPair(place, image, target)


def _all_local(pairs: PairTable) -> bool:
    urls = {
        storage.folder_of(url)
        for shards in pairs.views
        for shard in shards
        for url in (shard.image_url, shard.target_url)
    }
    return all(storage.local_path(url) is not None for url in urls)


def _uncached(file: ShardFile, offset: int, length: int, digest: int) -> bytes:
    return checked(storage.read_bytes(file.url, offset, length), file.url, offset, length, digest)


def _through(cache: ShardCache, file: ShardFile, offset: int, length: int, digest: int) -> bytes:
    """Read through the cache; what it has wrong is fetched once more before it is an error."""
    try:
        return checked(cache.read(file, offset, length), file.url, offset, length, digest)
    except DataError:
        cache.drop(file, offset, length)
        return checked(cache.read(file, offset, length), file.url, offset, length, digest)
