"""Write one unit of a target store: object by object, and the mark last.

Each outer shard of codes is collected in memory, encoded by zarr's own pipeline and written
atomically. So nothing is ever deleted, a rerun writes the same bytes under the same names, and a
store can be at any URL that storage/files.py can write to.
"""

import dataclasses
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import xxhash
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from milan_pipeline import storage
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.images.budget import Skipped
from milan_pipeline.images.views import PLACE_NUMBERS
from milan_pipeline.targets.layout import (
    OUTER_SHARD,
    ZARR_JSON,
    UnitBlock,
    create_codes,
    create_small_array,
    empty_block,
    put_view_group,
)
from milan_pipeline.targets.units import Mark, Unit, is_current, read_mark, revoke

PUT_THREADS = 4
"""Objects that are sent to a remote store at a time; each takes up to an outer shard of memory."""

_ZARR_CONFIG = threading.Lock()
"""zarr's configuration is that of the whole process, so only one thread at a time may set it."""


class UnitWriter:
    """Writes one unit: blocks in order, then `finish`, which writes the mark."""

    def __init__(
        self,
        url: str,
        unit: Unit,
        *,
        identity_hash: str,
        codec: Codec,
        shape: tuple[int, int],
        box_numbers: int = PLACE_NUMBERS,
        source_unit: str | None = None,
    ) -> None:
        """Start a unit.

        Args:
            url: the store.
            unit: what is written; the number of rows is at most that of its shard's samples.
            identity_hash: that of the store.
            codec: how the codes are stored.
            shape: (N, C) or (1, C) of one sample's codes.
            box_numbers: how many numbers a box has; see `views.view_numbers`.
            source_unit: hash of the unit that this one is transcoded from, if it is.
        """
        self._url = url
        self._unit = unit
        self._identity_hash = identity_hash
        self._source_unit = source_unit
        self._revoke_stale_mark()
        capacity = max(1, unit.shard.samples)
        self._puts = _Puts(url)
        self._objects: dict[str, str] = {}
        self._memory: dict[str, Any] = {}
        self._group = zarr.create_group(MemoryStore(self._memory), zarr_format=3)
        self._codes = create_codes(self._group, capacity, shape, codec.spec.dtype)
        # Codes are collected here until they fill an outer shard; `gathered` counts the rows.
        self._outer: NDArray[Any] = np.empty((min(OUTER_SHARD, capacity), *shape), codec.spec.dtype)
        self._gathered = self._written = 0
        # A unit without samples still has every array.
        self._blocks = [empty_block(codec.spec, codec.tokens_of(shape), shape, box_numbers)]

    def add(self, block: UnitBlock) -> None:
        """Append samples; their codes are copied, and each full outer shard is written at once.

        Raises:
            StorageError: the store cannot be written.
        """
        # The block is kept without its codes, which are the largest part of it. An empty slice
        # of the codes would keep all of them in memory.
        nothing = np.empty((0, *block.codes.shape[1:]), block.codes.dtype)
        self._blocks.append(dataclasses.replace(block, codes=nothing))
        taken = 0
        while taken < len(block.codes):
            rows = min(len(block.codes) - taken, len(self._outer) - self._gathered)
            into = slice(self._gathered, self._gathered + rows)
            self._outer[into] = block.codes[taken : taken + rows]
            self._gathered += rows
            taken += rows
            if self._gathered == len(self._outer):
                self._write_codes()

    def finish(self, skipped: list[Skipped]) -> Mark:
        """Write what is left, the small arrays and, last, the unit's mark.

        Raises:
            StorageError: the store cannot be written.
        """
        count = self._written + self._gathered
        if count != self._codes.shape[0]:
            self._codes.resize((count, *self._codes.shape[1:]))
        if self._gathered:
            self._write_codes()
        self._write_small_arrays()
        self._put([path for path in self._memory if not path.endswith(ZARR_JSON)])
        self._put(list(self._memory))
        put_view_group(self._url, self._unit.view)
        mark = Mark(
            shard=self._unit.shard.name,
            sha256=self._unit.shard.sha256,
            identity_hash=self._identity_hash,
            view=self._unit.view,
            n=count,
            skipped=skipped,
            objects=dict(sorted(self._objects.items())),
            source_unit=self._source_unit,
        )
        storage.put_bytes(storage.join(self._url, self._unit.mark_path), mark.to_bytes())
        return mark

    def _revoke_stale_mark(self) -> None:
        """Overwrite a stale mark: it must not stand for objects of which some are already new.

        A current mark may stay, since its objects have the bytes that are written here.
        """
        mark = read_mark(self._url, self._unit)
        if mark is None or (
            is_current(mark, self._unit, self._identity_hash)
            and mark.source_unit == self._source_unit
        ):
            return
        revoke(self._url, self._unit)

    def _write_codes(self) -> None:
        rows = slice(self._written, self._written + self._gathered)
        # As one batch. By default zarr makes several tasks of every chunk, which takes 30% longer
        # (measured).
        with _ZARR_CONFIG, zarr.config.set({"codec_pipeline.batch_size": OUTER_SHARD}):
            self._codes[rows] = self._outer[: self._gathered]
        self._written += self._gathered
        self._gathered = 0
        self._start_puts([path for path in self._memory if not path.endswith(ZARR_JSON)])

    def _write_small_arrays(self) -> None:
        for name in ("scale", "prior", "box", "flip", "size", "digest"):
            parts = [getattr(block, name) for block in self._blocks]
            if parts[0] is not None:
                self._write_array(name, np.concatenate(parts))
        keys = [key for block in self._blocks for key in block.key]
        self._write_array("key", np.array(keys, dtype=object))

    def _write_array(self, name: str, values: NDArray[Any]) -> None:
        dtype = str if values.dtype == object else values.dtype
        array = create_small_array(self._group, name, values.shape, dtype)
        if len(values):
            array[:] = values

    def _put(self, paths: list[str]) -> None:
        """Move finished objects from memory to the store, and wait until they are there."""
        self._start_puts(paths)
        self._puts.wait()

    def _start_puts(self, paths: Iterable[str]) -> None:
        for path in sorted(paths):
            data = memoryview(self._memory.pop(path).as_numpy_array())
            self._objects[path] = xxhash.xxh3_128_hexdigest(data)
            self._puts.put(storage.join(self._url, self._unit.path, path), data)


class _Puts:
    """Writes objects one by one to a local disk, several at a time to a remote store."""

    def __init__(self, url: str) -> None:
        remote = storage.local_path(url) is None
        self._threads = ThreadPoolExecutor(PUT_THREADS) if remote else None
        self._pending: deque[Future[None]] = deque()

    def put(self, url: str, data: memoryview) -> None:
        """Write an object, or begin to; waits while `PUT_THREADS` others are being written."""
        if self._threads is None:
            storage.put_bytes(url, data)
            return
        while len(self._pending) >= PUT_THREADS:
            self._pending.popleft().result()
        self._pending.append(self._threads.submit(storage.put_bytes, url, data))

    def wait(self) -> None:
        """Wait until every object is written."""
        while self._pending:
            self._pending.popleft().result()
