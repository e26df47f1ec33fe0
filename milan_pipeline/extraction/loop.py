"""The extraction loop: read -> decode and crop -> teacher -> encode -> write, overlapped.

Threads read and decode ahead of the teacher, across units, and write behind it. The main thread
only hands batches to the device: on a GPU it never waits for a result there, and two batches are
always under way. A batch never straddles two units, so a unit's bytes do not depend on which others
are done in the same run.
"""

import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.target_batches import DeviceCopies, TargetBatch, compute
from milan_pipeline.extraction.view_batches import PixelBuffers, ViewBatch, view_batches
from milan_pipeline.images.budget import BadImageBudget, Skipped
from milan_pipeline.targets.units import Mark, Unit, view_name
from milan_pipeline.targets.writer import UnitWriter

logger = logging.getLogger(__name__)

__all__ = ["ExtractionJob", "extract_units"]

BATCHES_UNDER_WAY = 2
"""Handed to the device and not yet written: while one is awaited, the next one computes."""
KEPT = "finished units are kept"


def _unwatched(_: int) -> None:
    """Nobody counts along."""


def extract_units(
    job: ExtractionJob,
    units: Sequence[Unit],
    budget: BadImageBudget,
    stop: StopRequest,
    seen: Callable[[int], object] = _unwatched,
) -> Generator[Mark, None, None]:
    """Extract units, yielding each one's mark as it is finished, in order.

    A unit that another process has finished by the time its turn comes is passed over; its mark is
    yielded all the same.

    Args:
        job: how.
        units: which ones.
        budget: is told of the images that cannot be read.
        stop: is asked before each batch.
        seen: is told how many images each batch had: progress bars and reports count by it.

    Raises:
        DataError: a shard is damaged, more images are unreadable than the budget allows, or the
            teacher gave what cannot be encoded.
        InterruptedRunError: a stop signal came; finished units are kept.
        StorageError: a shard cannot be read or the store cannot be written.
    """
    buffers = PixelBuffers.of(job, units)
    with (
        _Tails(job, buffers) as tails,
        contextlib.closing(view_batches(job, units, buffers)) as batches,
    ):
        for batch in batches:
            stop.raise_if_asked(KEPT)
            if isinstance(batch, ViewBatch):
                tails.add(batch)
                seen(len(batch.keys))
            # A unit is finished after the one before it, whose mark is out by then.
            ends = isinstance(batch, Mark) or batch.last
            for mark in tails.finished(wait=ends):
                yield from _counted(mark, budget)
                stop.raise_if_asked(KEPT)
            if isinstance(batch, Mark):
                seen(batch.n + len(batch.skipped))
                yield from _counted(batch, budget)
            elif batch.last:
                tails.finish()
        for mark in tails.finished(wait=True):
            yield from _counted(mark, budget)


def _counted(mark: Mark, budget: BadImageBudget) -> Iterator[Mark]:
    unit = f"{view_name(mark.view)}/{mark.shard}"
    logger.info("%s: %d targets, %d skipped", unit, mark.n, len(mark.skipped))
    yield mark
    budget.add(mark.shard, mark.skipped)


class _Tails:
    """The unit that is under way and the one before it, which is being finished meanwhile."""

    def __init__(self, job: ExtractionJob, buffers: PixelBuffers) -> None:
        self._job = job
        self._buffers = buffers
        self._copies = DeviceCopies(job.teacher.device)
        # Each unit is written by another thread than the last: one is finished, the next begins.
        self._pools = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._threads = itertools.cycle(self._pools)
        self._under_way: deque[Future[None]] = deque()
        self._tail: _UnitTail | None = None
        self._finishing: Future[Mark] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown()

    def add(self, batch: ViewBatch) -> None:
        """Have a batch computed and written; waits while too many are under way."""
        if self._tail is None:
            self._tail = _UnitTail(self._job, batch.unit, next(self._threads), self._buffers)
        under_way = self._under_way
        under_way.append(self._tail.add(batch, self._copies))
        while len(under_way) > BATCHES_UNDER_WAY or (under_way and under_way[0].done()):
            under_way.popleft().result()

    def finished(self, *, wait: bool) -> Iterator[Mark]:
        """Yield the mark of the unit that is being finished, if there is one and it is there."""
        if self._finishing is not None and (wait or self._finishing.done()):
            yield self._finishing.result()
            self._finishing = None

    def finish(self) -> None:
        """Have the unit that is under way finished."""
        if self._tail is not None:
            self._finishing, self._tail = self._tail.finish(), None


class _UnitTail:
    """A unit that is written in a thread, behind the teacher."""

    def __init__(
        self, job: ExtractionJob, unit: Unit, thread: ThreadPoolExecutor, buffers: PixelBuffers
    ) -> None:
        self._job = job
        self._unit = unit
        self._thread = thread
        self._buffers = buffers
        self._skipped: list[Skipped] = []
        self._written: list[Future[None]] = []
        self._writer = thread.submit(self._open)

    def add(self, views: ViewBatch, copies: DeviceCopies) -> Future[None]:
        """Have a batch computed, and written when its results are there."""
        self._skipped += views.skipped()
        good = views.good_rows()
        if len(good):
            results = compute(self._job, views, good, copies)
            self._written.append(self._thread.submit(self._write, results))
        else:
            self._written.append(self._thread.submit(self._buffers.give_back, views.buffer_BCSS))
        return self._written[-1]

    def finish(self) -> Future[Mark]:
        """Have the unit finished when all its batches are written."""
        return self._thread.submit(self._finish)

    def _open(self) -> UnitWriter:
        job = self._job
        return UnitWriter(
            job.store,
            self._unit,
            identity_hash=job.identity_hash,
            codec=job.codec,
            shape=job.code_shape,
        )

    def _write(self, results: TargetBatch) -> None:
        self._writer.result().add(results.landed(self._buffers))

    def _finish(self) -> Mark:
        # One thread does all of this in order: what failed before must not end in a mark.
        for written in self._written:
            written.result()
        return self._writer.result().finish(self._skipped)
