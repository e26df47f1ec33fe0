"""A read-only Zarr store that checks each object by its hash before it hands out a byte of it.

zarr takes an object that is not there for a chunk of zeros. This store knows which objects there
must be, so a missing or damaged one is an error.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import xxhash
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from milan_pipeline import storage
from milan_pipeline.core.file_kinds import HEAD, explained
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.targets.layout import ZARR_JSON

KEPT_BYTES = 64 << 20
"""Objects read last are kept up to this size, since samples are often read one by one."""


class VerifiedObjects(Store):
    """The objects of a folder, read-only, each checked by its known xxh3-128.

    zarr calls this in its own event loop; reads, which block, run in threads of that loop.
    """

    supports_writes: bool = False
    supports_deletes: bool = False
    supports_listing: bool = True

    def __init__(
        self,
        url: str,
        digests: Mapping[str, str],
        *,
        remedy: str,
        kept_bytes: int = KEPT_BYTES,
        by_chunk: bool = False,
    ) -> None:
        """Take the list of objects.

        Args:
            url: the folder of the objects.
            digests: hashes of the objects by their paths in the folder.
            remedy: what the error advises if an object is missing or damaged.
            kept_bytes: size of the objects that are kept; the one read last is, whatever its size.
            by_chunk: fetch only the part of an object that zarr asks for. It is not checked by the
                object's hash then, but by the checksum that each chunk carries, which zarr reads.
        """
        super().__init__(read_only=True)
        self._url = url
        self._digests = digests
        self._remedy = remedy
        self._kept_bytes = kept_bytes
        self._by_chunk = by_chunk
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        # If several threads ask for the same object at once, only one of them fetches it.
        self._fetching: dict[str, asyncio.Lock] = {}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, VerifiedObjects)
            and self._url == other._url
            and self._digests == other._digests
        )

    def __hash__(self) -> int:
        return hash(self._url)

    def __repr__(self) -> str:
        return f"VerifiedObjects({self._url!r})"

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of it; None if there need be no such object.

        Raises:
            DataError: the object is missing or damaged.
            StorageError: the object cannot be read.
        """
        if not self._must_exist(key):
            return None
        if self._by_chunk and byte_range is not None:
            return prototype.buffer.from_bytes(
                await asyncio.to_thread(self._fetch_part, key, byte_range)
            )
        async with self._fetching.setdefault(key, asyncio.Lock()):
            data = self._kept.get(key)
            if data is None:
                data = await asyncio.to_thread(self._fetch, key)
            self._keep(key, data)
        return prototype.buffer.from_bytes(memoryview(data)[_slice(byte_range)])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects, as `get` does."""
        return list(await asyncio.gather(*(self.get(key, prototype, at) for key, at in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Tell whether an object was written."""
        return key in self._digests

    async def list(self) -> AsyncIterator[str]:
        """Yield every object's path."""
        for key in self._digests:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the paths that begin with a prefix."""
        for key in self._digests:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names in a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        inside = (key.removeprefix(folder) for key in self._digests if key.startswith(folder))
        for name in dict.fromkeys(key.split("/")[0] for key in inside):
            yield name

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """Refuse to write."""
        self._check_writable()

    async def delete(self, key: str) -> None:  # noqa: ARG002
        """Refuse to delete."""
        self._check_writable()

    def _must_exist(self, key: str) -> bool:
        """Tell whether an object must exist; zarr also asks for objects that need not."""
        if key in self._digests or key == ZARR_JSON or "/c/" in key:
            return True
        chunks = key.removesuffix(ZARR_JSON) + "c/"
        is_array = key.endswith(f"/{ZARR_JSON}")
        return is_array and any(path.startswith(chunks) for path in self._digests)

    def _fetch_part(self, key: str, byte_range: ByteRequest) -> bytes:
        place = storage.join(self._url, key)

        def read() -> bytes:
            size = storage.size_of(place)
            if size is None:
                return storage.read_bytes(place)[_slice(byte_range)]
            start, stop, _ = _slice(byte_range).indices(size)
            return storage.read_bytes(place, start, stop - start)

        return self._present(place, key, read)

    def _fetch(self, key: str) -> bytes:
        place = storage.join(self._url, key)
        data = self._present(place, key, lambda: storage.read_bytes(place))
        if xxhash.xxh3_128_hexdigest(data) != self._digests[key]:
            raise DataError(explained(place, data[:HEAD], f"is damaged; {self._remedy}"))
        return data

    def _present(self, place: str, key: str, read: Callable[[], bytes]) -> bytes:
        try:
            data = read() if key in self._digests else None
        except MissingDataError:
            data = None
        if data is None:
            raise DataError(f"{place} is missing; {self._remedy}")
        return data

    def _keep(self, key: str, data: bytes) -> None:
        self._kept[key] = data
        self._kept.move_to_end(key)
        total = sum(map(len, self._kept.values()))
        while total > self._kept_bytes and len(self._kept) > 1:
            total -= len(self._kept.popitem(last=False)[1])


def _slice(byte_range: ByteRequest | None) -> slice:
    match byte_range:
        case RangeByteRequest(start, end):
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix):
            return slice(-suffix, None) if suffix else slice(0, 0)
        case _:
            return slice(None)
