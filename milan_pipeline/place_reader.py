"""Read what lies at places in order: at once from local files, ahead in threads from elsewhere."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Protocol, TypeVar

from milan_pipeline import storage
from milan_pipeline.errors import DataError
from milan_pipeline.parallel import ordered_map
from milan_pipeline.sample_table import Place
from milan_pipeline.shard_cache import CacheConfig, ShardCache, ShardFile
from milan_pipeline.shards import SampleReader, checked

READ_THREADS = 16
READ_AHEAD = 64  # samples, which bounds the memory that they wait in: about 10 MB

ResultT = TypeVar("ResultT")


class Read(Protocol):
    """A function that reads from a shard."""

    def __call__(self, file: ShardFile, offset: int, length: int, digest: int, /) -> bytes:
        """Return `length` bytes from `offset`; `digest` is their xxh3-64."""


def read_places(
    places: Iterator[Place],
    fetch: Callable[[Place, Read], ResultT],
    *,
    local: bool,
    cache: CacheConfig | None = None,
) -> Generator[ResultT, None, None]:
    """Yield what is fetched for each place, in order.

    Local files are read when their turn comes, since the system reads ahead in them; remote ones,
    and all where there is a cache, are read ahead by `READ_THREADS` threads.

    Args:
        places: consumed lazily, at most `READ_AHEAD` in advance.
        fetch: reads what lies at a place by the function that it is given.
        local: whether all shards are local files.
        cache: keeps what was read; None reads from the source.

    Raises:
        DataError: bytes are not what the index says.
        MissingDataError: a shard does not exist.
        StorageError: a shard cannot be read or the cache cannot be written.
    """
    if cache is None and local:
        with contextlib.closing(SampleReader()) as reader:
            for place in places:
                yield fetch(place, lambda file, *at: reader.read(file.url, *at))
        return
    read = _uncached if cache is None else functools.partial(_through, ShardCache(cache))
    ahead = ordered_map(
        lambda place: fetch(place, read), places, workers=READ_THREADS, ahead=READ_AHEAD
    )
    with contextlib.closing(ahead):
        yield from ahead


def all_local(urls: Iterator[str]) -> bool:
    """Tell whether all files lie on this machine."""
    folders = {storage.folder_of(url) for url in urls}
    return all(storage.local_path(folder) is not None for folder in folders)


def _uncached(file: ShardFile, offset: int, length: int, digest: int) -> bytes:
    return checked(storage.read_bytes(file.url, offset, length), file.url, offset, length, digest)


def _through(cache: ShardCache, file: ShardFile, offset: int, length: int, digest: int) -> bytes:
    """Read through the cache; what it has wrong is fetched once more before it is an error."""
    try:
        return checked(cache.read(file, offset, length), file.url, offset, length, digest)
    except DataError:
        cache.drop(file, offset, length)
        return checked(cache.read(file, offset, length), file.url, offset, length, digest)
