"""Extraction on Dask workers: each loads the teacher once, then extracts unit after unit.

A unit that fails does not stop the others, unless many units fail in a row.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Generator, Sequence
from typing import NamedTuple

from distributed import Client, get_worker

from milan_pipeline.cluster.dask_client import Ended, map_on_workers
from milan_pipeline.cluster.work import Work
from milan_pipeline.core.devices import device_of_process
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import (
    DataError,
    InterruptedRunError,
    MilanError,
    MismatchError,
    reason_of,
)
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.extraction.spec import JobSpec
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.provenance.identity import require_hash, require_same
from milan_pipeline.provenance.reporter import Reporter
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.units import Mark, Unit, read_mark, why_undone
from milan_pipeline.teacher.teacher import Teacher


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionSpec:
    """What every worker needs to know.

    Attributes:
        job: the extraction.
        manifest_sha256: hash of the manifest that the units were listed from.
        store_hash: hash of the store's identity; work that was begun for another is begun anew.
        reports: prefix of the names of the workers' progress reports.
    """

    job: JobSpec
    manifest_sha256: str
    store_hash: str
    reports: str

    def begin(self, number: int | None) -> "ExtractionWork":
        """Load the teacher.

        Raises:
            MismatchError: images, store or teacher are not the client's.
            StorageError: a store cannot be read; a retry may succeed.
        """
        job = self.job
        manifest = job.manifest()
        if manifest.sha256 != self.manifest_sha256:
            raise MismatchError(f"{job.images} lists other images there than for the client")
        stored = read_identity(job.store)
        require_hash(stored, self.store_hash, what=job.store)
        device = device_of_process(job.device, number=number)
        teacher = Teacher.load(job.teacher, device=str(device))
        identity = job.identity(teacher, stored["codec"])
        require_same(stored, identity, what=job.store, remedy="give all workers the same teacher")
        name = f"{self.reports}-worker-{get_worker().name}"
        return ExtractionWork(job.job(manifest, teacher, identity), name)


class ExtractionWork(Work[Unit, Mark]):
    """A worker with its teacher; one unit at a time, however many threads it has."""

    def __init__(self, job: ExtractionJob, name: str) -> None:
        self._job = job
        self._name = name
        self._reporter: Reporter | None = None
        self._at_work = threading.Lock()

    def do(self, item: Unit, stop: StopRequest) -> Mark:
        """Extract one unit, unless it is done; return its mark without objects.

        Raises:
            DataError: the shard is damaged, or a target cannot be encoded.
            InterruptedRunError: the run has ended.
            StorageError: a store cannot be read or written; a retry may succeed.
        """
        with self._at_work:
            stop.raise_if_asked("finished units are kept")
            mark = read_mark(self._job.store, item)
            if not mark or why_undone(item, {item.mark_path: mark}, self._job.identity_hash):
                if self._reporter is None:
                    self._reporter = Reporter(self._job.store, self._name, units=None)
                mark = self._extract(item, stop, self._reporter)
            return dataclasses.replace(mark, objects={})

    def end(self, state: str) -> None:
        """Write into the report how the run ended."""
        if self._reporter is not None:
            self._reporter.close("done" if state == "done" else "interrupted")
            self._reporter = None

    def _extract(self, unit: Unit, stop: StopRequest, reporter: Reporter) -> Mark:
        reporter.begin(unit.path)
        # The client counts the bad images of all units.
        budget = BadImageBudget(fraction=1, images=unit.shard.samples)
        try:
            (mark,) = extract_units(self._job, [unit], budget, stop, reporter.images)
        except InterruptedRunError:
            reporter.close("interrupted")
            raise
        except Exception as error:
            reporter.fail(reason_of(error))
            raise
        reporter.end(unit.path)
        return mark


FAILURES_IN_A_ROW = 20
"""If so many units fail without a success in between, the cause is not in the units."""
NAMED_FAILURES = 10


class Outcome(NamedTuple):
    """A unit, and its mark without objects; None if the unit failed."""

    unit: Unit
    mark: Mark | None


def extract_on_workers(
    client: Client,
    spec: ExtractionSpec,
    units: Sequence[Unit],
    stop: StopRequest,
    *,
    share_machine: bool,
) -> Generator[Outcome, None, None]:
    """Have workers extract units, and yield the outcome of each when it is known, in any order.

    Args:
        client: client of the cluster.
        spec: the extraction.
        units: which units.
        stop: asked again and again.
        share_machine: whether the workers are those of a local cluster.

    Raises:
        DataError: many units fail in a row; or some failed, once the others are done.
        InterruptedRunError: a stop signal came; finished units are kept, and others may still be
            finished.
        MissingDataError: a worker lacks what every worker needs.
    """
    failed: list[Ended[Unit, Mark]] = []
    in_a_row: list[Ended[Unit, Mark]] = []
    everything = map_on_workers(client, spec, units, stop, share_machine=share_machine)
    with contextlib.closing(everything):
        for ended in everything:
            if ended.error is None:
                in_a_row = []
            else:
                failed.append(ended)
                in_a_row.append(ended)
            yield Outcome(ended.item, ended.result)
            if len(in_a_row) >= FAILURES_IN_A_ROW:
                raise DataError(_listing(in_a_row, len(units)))
    if failed:
        raise DataError(_listing(failed, len(units)))


def _listing(failed: Sequence[Ended[Unit, Mark]], units: int) -> str:
    named = ", ".join(f"{one.item.path} ({_reason(one.error)})" for one in failed[:NAMED_FAILURES])
    return (
        f"{len(failed)} of {units} units failed: {named}; repair what they name and run the "
        "same command again"
    )


def _reason(error: Exception | None) -> str:
    if error is None or isinstance(error, MilanError):
        return "" if error is None else reason_of(error)
    return f"{type(error).__name__}: {reason_of(error)}"
