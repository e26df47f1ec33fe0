"""The extraction loop: read -> decode and crop -> teacher -> encode -> write, overlapped.

Threads read and decode ahead of the teacher, across units, and write behind it. The main thread
only hands batches to the device: on a GPU it never waits for a result, and two batches are always
in progress. A batch never holds images of two units, so a unit's bytes do not depend on which other
units are done in the same run.
"""

import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from milan_pipeline.core.device_copies import DeviceCopies
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.target_batches import TargetBatch, compute
from milan_pipeline.extraction.view_batches import PixelBuffers, ViewBatch, view_batches
from milan_pipeline.images.budget import BadImageBudget, Skipped
from milan_pipeline.targets.units import Mark, Unit, view_name
from milan_pipeline.targets.writer import UnitWriter

logger = logging.getLogger(__name__)

BATCHES_IN_PROGRESS = 2
"""Batches that the device has and that are not written: one is copied, the next is computed."""
KEPT = "finished units are kept"


def extract_units(
    job: ExtractionJob,
    units: Sequence[Unit],
    budget: BadImageBudget,
    stop: StopRequest,
    count: Callable[[int], object] = lambda _: None,
) -> Generator[Mark, None, None]:
    """Extract units in order, and yield each one's mark when it is finished.

    A unit that another process has finished before its turn comes is skipped; its mark is yielded,
    too.

    Args:
        job: says how units are extracted.
        units: which units.
        budget: counts the images that cannot be read.
        stop: asked before each batch.
        count: called with the number of images of each batch, for progress bars and reports.

    Raises:
        DataError: a shard is damaged, more images are unreadable than the budget allows, or the
            teacher gave what cannot be encoded.
        InterruptedRunError: a stop signal came; finished units are kept.
        StorageError: a shard cannot be read or the store cannot be written.
    """
    buffers = PixelBuffers.of(job, units)
    with (
        _UnitsInProgress(job, buffers) as in_progress,
        contextlib.closing(view_batches(job, units, buffers)) as batches,
    ):
        for batch in batches:
            stop.raise_if_asked(KEPT)
            if isinstance(batch, ViewBatch):
                in_progress.add(batch)
                count(len(batch.keys))
            # A unit is finished only after the mark of the unit before it was yielded.
            ends = isinstance(batch, Mark) or batch.last
            for mark in in_progress.finished(wait=ends):
                yield from _counted(mark, budget)
                stop.raise_if_asked(KEPT)
            if isinstance(batch, Mark):
                count(batch.n + len(batch.skipped))
                yield from _counted(batch, budget)
            elif batch.last:
                in_progress.finish()
        for mark in in_progress.finished(wait=True):
            yield from _counted(mark, budget)


def _counted(mark: Mark, budget: BadImageBudget) -> Iterator[Mark]:
    unit = f"{view_name(mark.view)}/{mark.shard}"
    logger.info("%s: %d targets, %d skipped", unit, mark.n, len(mark.skipped))
    yield mark
    budget.add(mark.shard, mark.skipped)


class _UnitsInProgress:
    """The unit that is being written, and the unit before it, which is being finished."""

    def __init__(self, job: ExtractionJob, buffers: PixelBuffers) -> None:
        self._job = job
        self._buffers = buffers
        self._copies = DeviceCopies(job.teacher.device)
        # Units alternate between two threads: while one is finished, the next one begins.
        self._pools = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._threads = itertools.cycle(self._pools)
        self._batches: deque[Future[None]] = deque()
        self._current: _UnitInProgress | None = None
        self._finishing: Future[Mark] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown()

    def add(self, batch: ViewBatch) -> None:
        """Have a batch computed and written; waits while too many batches are in progress."""
        if self._current is None:
            self._current = _UnitInProgress(
                self._job, batch.unit, next(self._threads), self._buffers
            )
        batches = self._batches
        batches.append(self._current.add(batch, self._copies))
        while len(batches) > BATCHES_IN_PROGRESS or (batches and batches[0].done()):
            batches.popleft().result()

    def finished(self, *, wait: bool) -> Iterator[Mark]:
        """Yield the mark of the unit that is being finished, if there is one and it is done."""
        if self._finishing is not None and (wait or self._finishing.done()):
            yield self._finishing.result()
            self._finishing = None

    def finish(self) -> None:
        """Have the present unit finished."""
        if self._current is not None:
            self._finishing, self._current = self._current.finish(), None


class _UnitInProgress:
    """A unit that a thread writes while the teacher goes on."""

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
        """Have a batch computed, and written as soon as its results are on the host."""
        self._skipped += views.skipped()
        good = views.good_rows()
        if len(good):
            results = compute(self._job, views, good, copies)
            self._written.append(self._thread.submit(self._write, results))
        else:
            self._written.append(self._thread.submit(self._buffers.give_back, views.buffer_BCSS))
        return self._written[-1]

    def finish(self) -> Future[Mark]:
        """Have the unit finished after all its batches are written."""
        return self._thread.submit(self._finish)

    def _open(self) -> UnitWriter:
        job = self._job
        return UnitWriter(
            job.store,
            self._unit,
            identity_hash=job.identity_hash,
            codec=job.codec,
            shape=job.code_shape,
            box_numbers=job.policy.numbers,
        )

    def _write(self, results: TargetBatch) -> None:
        self._writer.result().add(results.to_block(self._buffers))

    def _finish(self) -> Mark:
        # One thread does all of this in order. If a write failed, no mark may be written.
        for written in self._written:
            written.result()
        return self._writer.result().finish(self._skipped)
