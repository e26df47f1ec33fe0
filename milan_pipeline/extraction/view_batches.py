"""Image shards -> batches of views, read and decoded in threads ahead of the teacher.

Each image is decoded directly into its row of a reusable buffer of pixels. A batch holds
consecutive images of one unit; the row of an unreadable image stays unused. How a unit is cut into
batches depends on its own images alone.

Legend: B rows of a buffer, R rows of a batch (R <= B), n images of a batch (n <= R), S the
teacher's input size.
"""

import contextlib
import dataclasses
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.core.threads import ordered_map, read_ahead
from milan_pipeline.errors import BadImageError
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.images.budget import Skipped
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import PLACE_NUMBERS
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.sequential import read_rows
from milan_pipeline.targets.units import Mark, Unit, is_current, read_mark

READ_THREADS = 4
DECODED_TOGETHER = 8
"""Images that a thread decodes at a time: handing them over one by one costs more."""
BATCHES_AHEAD, IMAGES_AHEAD = 2, 64
"""Batches that are decoded in advance, and images that are at least decoded in advance."""
MOST_BATCHES = 8
"""The most batches in decoding at a time, unless there are more threads: tiny shards have small
batches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewBatch:
    """Consecutive images of a unit, and the views that were cut out of them.

    Attributes:
        unit: the unit that the images belong to.
        last: whether these are the last images of the unit.
        keys: n keys of the images.
        digest: (n,) uint64, hashes of their bytes.
        rows: R.
        buffer_BCSS: (B, 3, S, S) uint8; the views are in its first rows, and it must be given back.
            Rows of unreadable images, and all rows from n on, hold old pixels.
        box: (n, 4) float32, with colours (n, 11), as the store has it.
        flip: (n,) bool.
        size: (n, 2) int32, height and width of the source.
        reasons: why an image has no view, by row.
    """

    unit: Unit
    last: bool
    keys: list[str]
    digest: NDArray[np.uint64]
    rows: int
    buffer_BCSS: torch.Tensor
    box: NDArray[np.float32]
    flip: NDArray[np.bool_]
    size: NDArray[np.int32]
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)

    def good_rows(self) -> NDArray[np.int64]:
        """Return the rows that hold a view."""
        rows = [row for row in range(len(self.keys)) if row not in self.reasons]
        return np.array(rows, np.int64)

    def skipped(self) -> list[Skipped]:
        """Return the unreadable images as rows of the ledger."""
        return [
            {"key": self.keys[row], "reason": reason}
            for row, reason in sorted(self.reasons.items())
        ]


class PixelBuffers:
    """Buffers of pixels that are reused; there are as many as are in use at the same time."""

    def __init__(self, shape: tuple[int, int, int, int], *, pinned: bool) -> None:
        """Start without a buffer.

        Args:
            shape: (B, 3, S, S).
            pinned: whether buffers are in page-locked memory, which a GPU can copy by itself.
        """
        self._shape = shape
        self._pinned = pinned
        self._free: deque[torch.Tensor] = deque()

    @classmethod
    def of(cls, job: ExtractionJob, units: Iterable[Unit]) -> "PixelBuffers":
        """Return buffers for the largest batch of some units."""
        counts = {unit.shard.samples for unit in units} - {0}
        rows = max((job.rows_of(count) for count in counts), default=1)
        size = job.teacher.image_size
        return cls((rows, 3, size, size), pinned=job.teacher.device.type == "cuda")

    def take(self) -> torch.Tensor:
        """Return a buffer that is not in use."""
        if self._free:
            return self._free.pop()
        return torch.zeros(self._shape, dtype=torch.uint8, pin_memory=self._pinned)

    def give_back(self, buffer_BCSS: torch.Tensor) -> None:
        """Take a buffer back; may be called by any thread."""
        self._free.append(buffer_BCSS)


class _Opened(NamedTuple):
    """A unit that is being read: its index or, if it was done before, its mark."""

    unit: Unit
    keys: list[str]
    digests: NDArray[np.uint64]
    mark: Mark | None = None


class _Part(NamedTuple):
    """Some images of a batch, which are decoded into its rows from `first` on."""

    batch: ViewBatch
    first: int
    images: list[bytes]


def view_batches(
    job: ExtractionJob, units: Sequence[Unit], buffers: PixelBuffers
) -> Generator[ViewBatch | Mark, None, None]:
    """Yield the batches of each unit, in order.

    The caller gives each batch's buffer back. An empty unit has one empty batch. If a unit has a
    current mark when its turn comes, the mark is yielded and no batch.

    Raises:
        DataError: a shard or an index is damaged.
        StorageError: a shard or an index cannot be read.
    """
    batches = _decoded(job, units, buffers)
    ahead = read_ahead(batches, ahead=BATCHES_AHEAD, workers=min(1, job.workers))
    with contextlib.closing(ahead):
        yield from ahead


def _decoded(
    job: ExtractionJob, units: Sequence[Unit], buffers: PixelBuffers
) -> Generator[ViewBatch | Mark, None, None]:
    """Yield each batch when its last part is decoded; parts are in order."""
    of_threads = 2 * job.workers * DECODED_TOGETHER  # so that each has work, and its next
    images = max(BATCHES_AHEAD * job.batch_size, IMAGES_AHEAD, of_threads)
    batches = max(MOST_BATCHES, job.workers)

    def cost(item: _Part | Mark) -> float:
        if isinstance(item, Mark):
            return 1 / batches
        of_batch = len(item.images) / max(1, len(item.batch.keys))
        return max(len(item.images) / images, (of_batch or 1) / batches)

    decoded = ordered_map(
        lambda item: item if isinstance(item, Mark) else _decode_part(job, item),
        _parts(job, units, buffers),
        workers=job.workers,
        ahead=1,
        cost=cost,
    )
    with contextlib.closing(decoded):
        for item in decoded:
            if isinstance(item, Mark):
                yield item
            elif item.first + len(item.images) == len(item.batch.keys):
                yield item.batch


def _parts(
    job: ExtractionJob, units: Sequence[Unit], buffers: PixelBuffers
) -> Iterator[_Part | Mark]:
    opened: deque[_Opened] = deque()
    threads = READ_THREADS if job.workers else 0
    with contextlib.closing(read_rows(_tables(job, units, opened), threads=threads)) as rows:
        for _, of_unit in itertools.groupby(rows, key=lambda row: row[0]):
            yield from _without_rows(opened, buffers)
            images = (data for _, _, data in of_unit)
            yield from _parts_of_unit(job, opened.popleft(), images, buffers)
        yield from _without_rows(opened, buffers)


def _tables(
    job: ExtractionJob, units: Sequence[Unit], opened: deque[_Opened]
) -> Iterator[tuple[str, NDArray[np.void]]]:
    """Yield the URL and the index of each unit to be read; runs ahead of the decoding."""
    for unit in units:
        mark = read_mark(job.store, unit)
        if mark is not None and is_current(mark, unit, job.identity_hash):
            opened.append(_Opened(unit, [], np.zeros(0, np.uint64), mark))
            continue
        table = load_index(job.manifest, unit.shard)
        opened.append(_Opened(unit, keys_of(table), table["xxh3"].copy()))
        yield job.manifest.url_of(unit.shard), table


def _without_rows(opened: deque[_Opened], buffers: PixelBuffers) -> Iterator[_Part | Mark]:
    """Yield the marks and empty batches of units without rows to read, up to the next with rows."""
    while opened and not opened[0].keys:
        at = opened.popleft()
        yield at.mark or _Part(_batch(at, range(0), 0, buffers), 0, [])


def _parts_of_unit(
    job: ExtractionJob, at: _Opened, images: Iterator[bytes], buffers: PixelBuffers
) -> Iterator[_Part]:
    """Cut a unit into batches of one size, and these into parts."""
    count = len(at.keys)
    size = job.rows_of(count)
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        batch = _batch(at, numbers, size, buffers, of_view=job.policy.numbers)
        for first in range(0, len(batch.keys), DECODED_TOGETHER):
            several = min(DECODED_TOGETHER, len(batch.keys) - first)
            yield _Part(batch, first, list(itertools.islice(images, several)))


def _batch(
    at: _Opened, numbers: range, rows: int, buffers: PixelBuffers, *, of_view: int = PLACE_NUMBERS
) -> ViewBatch:
    cut, count = slice(numbers.start, numbers.stop), len(numbers)
    return ViewBatch(
        unit=at.unit,
        last=numbers.stop == len(at.keys),
        keys=at.keys[cut],
        digest=at.digests[cut],
        rows=rows,
        buffer_BCSS=buffers.take(),
        box=np.zeros((count, of_view), np.float32),
        flip=np.zeros(count, np.bool_),
        size=np.zeros((count, 2), np.int32),
    )


def _decode_part(job: ExtractionJob, part: _Part) -> _Part:
    for row, data in enumerate(part.images, start=part.first):
        _decode(job, part.batch, row, data)
    return part


def _decode(job: ExtractionJob, batch: ViewBatch, row: int, data: bytes) -> None:
    """Decode an image and cut its view into its row, or note why it has no view."""
    try:
        rgb_HWC = decode_rgb(data, batch.keys[row])
    except BadImageError as error:
        batch.reasons[row] = str(error)
        return
    height, width = rgb_HWC.shape[0], rgb_HWC.shape[1]
    box = job.policy.box(height, width, batch.keys[row], batch.unit.view)
    seen, size = job.policy.for_teacher(box), job.teacher.image_size
    interpolation, out = job.teacher.interpolation, batch.buffer_BCSS[row]
    view_pixels(rgb_HWC, seen, size, interpolation=interpolation, out=out)
    batch.box[row] = box.numbers
    batch.flip[row] = box.flip
    batch.size[row] = height, width
