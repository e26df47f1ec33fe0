"""Read single samples of shards at any place: local ones directly, remote ones ahead."""

import contextlib
import functools
import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.file_kinds import HEAD, explained
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import DataError, MilanError, MissingDataError
from milan_pipeline.shards.cache import CacheConfig, ShardCache, ShardFile

IMAGE_MEMBER = "image"
OPEN_FILES = 256  # each of up to 64 lanes reads an image and a target shard, at times two
READ_THREADS = 16
READ_AHEAD = 64  # samples, which bounds the memory that they wait in: about 10 MB
AGAIN = (
    "copy it again, or delete it and run the stage that wrote it again, or index it anew with "
    "`milan-pipeline index --overwrite` if it was changed on purpose"
)
"""What helps with a shard that is not what the manifest and the index say."""
LISTED = (
    "the manifest lists it there: copy it again, run the stage that wrote it again, or index it "
    "where it is now"
)
"""What helps with a shard that is not there."""
ResultT = TypeVar("ResultT")


class Read(Protocol):
    """A function that reads from a shard."""

    def __call__(self, file: ShardFile, offset: int, length: int, digest: int, /) -> bytes:
        """Return `length` bytes from `offset`; `digest` is their xxh3-64."""


class Place(NamedTuple):
    """A sample's place in a table, and the epoch that it is read for."""

    epoch: int
    view: int
    shard: int
    row: int


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
    with explaining_missing(file.url):
        data = storage.read_bytes(file.url, offset, length)
    return checked(data, file.url, offset, length, digest)


def _through(cache: ShardCache, file: ShardFile, offset: int, length: int, digest: int) -> bytes:
    """Read through the cache; if its bytes are wrong, they are fetched once more."""
    with explaining_missing(file.url):
        try:
            return checked(cache.read(file, offset, length), file.url, offset, length, digest)
        except DataError:
            cache.drop(file, offset, length)
            return checked(cache.read(file, offset, length), file.url, offset, length, digest)


@contextlib.contextmanager
def explaining_missing(url: str) -> Iterator[None]:
    """Say what helps where a shard is not there."""
    try:
        yield
    except MissingDataError as error:
        raise MissingDataError(f"{url} does not exist; {LISTED}") from error


class SampleTable(Protocol):
    """Samples by view, shard and row; epoch e has those of view e mod `cycle`."""

    @property
    def cycle(self) -> int:
        """How many views there are; 1 where every epoch has the same samples."""

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of samples in each shard of a view."""

    def read(
        self, places: Iterator[Place], cache: CacheConfig | None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the samples at some places, in order and verified.

        Each has `__key__`, `__url__`, `epoch` and its members' bytes.
        """


class SampleReader:
    """Read single samples by offset from local or remote shards, each checked by its hash.

    Local files stay open, a bounded number at a time. Not for sharing between threads.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[str, BinaryIO | None] = OrderedDict()

    def read(self, url: str, offset: int, length: int, digest: int) -> bytes:
        """Return `length` bytes from `offset`.

        Raises:
            DataError: the bytes' xxh3-64 is not `digest`, or the shard ends before them.
            MissingDataError: there is no such shard.
            StorageError: the shard cannot be read.
        """
        with explaining_missing(url):
            return checked(self._read(url, offset, length), url, offset, length, digest)

    def _read(self, url: str, offset: int, length: int) -> bytes:
        file = self._local_file(url)
        try:
            data = os.pread(file.fileno(), length, offset) if file else None
        except OSError:  # a file server may have failed: open it anew, with retries
            self._close(url)
            data = None
        if data is None:
            data = storage.read_bytes(url, offset, length)
        return data

    def read_row(self, url: str, row: np.void) -> bytes:
        """Return the sample of a row of the shard's index; raises what `read` does."""
        return self.read(url, int(row["offset"]), int(row["length"]), int(row["xxh3"]))

    def _local_file(self, url: str) -> BinaryIO | None:
        """Return the open file of a local URL, None for a remote one; cached."""
        if url in self._files:
            self._files.move_to_end(url)
            return self._files[url]
        if len(self._files) >= OPEN_FILES:
            self._close(next(iter(self._files)))
        local = storage.local_path(url) is not None
        self._files[url] = storage.open_read(url) if local else None
        return self._files[url]

    def _close(self, url: str) -> None:
        file = self._files.pop(url)
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close every open file."""
        for url in list(self._files):
            self._close(url)


def checked(data: bytes, url: str, offset: int, length: int, digest: int) -> bytes:
    """Return a sample's bytes if they are what the index says.

    Raises:
        DataError: their xxh3-64 is not `digest`.
    """
    if xxhash.xxh3_64_intdigest(data) != digest:
        raise not_as_listed(url, f"the {length} bytes at {offset} do not match the index")
    return data


def not_as_listed(url: str, what: str) -> DataError:
    """Return the error for a shard that is not what the manifest and the index say.

    Args:
        url: of the shard.
        what: in which it differs, where the shard itself is there.
    """
    head = b""
    with contextlib.suppress(MilanError), contextlib.closing(storage.open_read(url)) as stream:
        head = stream.read(HEAD)
    return DataError(explained(url, head, f"is truncated or damaged: {what}; {AGAIN}"))
