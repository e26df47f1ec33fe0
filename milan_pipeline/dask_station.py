"""What a Dask worker process does: load the teacher once, then extract unit after unit.

A unit's bytes depend on the unit alone, so it does not matter which worker did it, or that two did.
"""

import dataclasses
import os
import threading
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from distributed import Worker, get_worker

from milan_pipeline.devices import pick_device
from milan_pipeline.errors import InterruptedRunError, MilanError, MismatchError, StorageError
from milan_pipeline.extraction import extract_units
from milan_pipeline.identity import require_same
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.job_spec import JobSpec
from milan_pipeline.ledger import BadImageBudget
from milan_pipeline.target_store import read_identity
from milan_pipeline.teacher import Teacher
from milan_pipeline.units import Mark, Unit, read_mark, why_undone
from milan_pipeline.work_reports import Reporter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """What every worker is told.

    Attributes:
        run: tells the client's run from others.
        spec: the extraction.
        manifest_sha256: of the images that the units were listed from.
        reports: what the names of the workers' progress reports begin with.
        local_workers: how many workers share this machine, as processes of a local cluster; None
            where somebody else has set up the workers and their devices.
    """

    run: str
    spec: JobSpec
    manifest_sha256: str
    reports: str
    local_workers: int | None


class Outcome(NamedTuple):
    """What became of a unit: its mark without objects, or why there is none.

    `lasting` says that the worker cannot do any unit, and others most likely neither.
    """

    unit: Unit
    mark: Mark | None
    reason: str = ""
    lasting: bool = False


def do_unit(assignment: Assignment, unit: Unit) -> Outcome:
    """Extract one unit on this worker, unless its mark is there.

    Raises:
        StorageError: a store failed for long; it may pass, so Dask is to try again.
    """
    worker = get_worker()
    try:
        station = _station(assignment, worker)
    except StorageError:  # which may pass, so nobody else is concerned
        raise
    except MilanError as error:
        reason = (
            f"worker {worker.address} cannot take part ({error}); every worker must reach the "
            "images, the store and the teacher under the names that the client was given: use "
            "URLs or shared folders, and the same versions of packages"
        )
        return Outcome(unit, None, reason, lasting=True)
    return station.do(assignment, unit)


def end_run(run: str, state: str, dask_worker: Worker) -> None:
    """Have a worker drop what it does for a run, and say in its report how that ended."""
    _ENDED[dask_worker] = run
    station = _STATIONS.get(dask_worker)
    if station is not None:
        station.end_run(state)


class _Station:
    """A worker with its teacher; one unit at a time, however many threads it has."""

    def __init__(self, assignment: Assignment, worker: Worker) -> None:
        spec = assignment.spec
        self.made_for = spec, assignment.manifest_sha256
        self._worker = worker
        self._reporter: Reporter | None = None
        self._stop = StopRequest()
        self._at_work = threading.Lock()
        manifest = spec.manifest()
        if manifest.sha256 != assignment.manifest_sha256:
            raise MismatchError(f"{spec.images} lists other images there than for the client")
        stored = read_identity(spec.store)
        device = _device(assignment, str(worker.name))
        teacher = Teacher.load(spec.teacher, device=device)
        identity = spec.identity(teacher, stored["codec"])
        require_same(stored, identity, what=spec.store, remedy="give all workers the same teacher")
        self._job = spec.job(manifest, teacher, identity)

    def do(self, assignment: Assignment, unit: Unit) -> Outcome:
        with self._at_work:
            self._stop = StopRequest()
            if _ENDED.get(self._worker) == assignment.run:
                return Outcome(unit, None, "the run has ended")
            done = read_mark(self._job.store, unit)
            if done and not why_undone(unit, {unit.mark_path: done}, self._job.identity_hash):
                return Outcome(unit, dataclasses.replace(done, objects={}))
            if self._reporter is None:
                name = f"{assignment.reports}-worker-{self._worker.name}"
                self._reporter = Reporter(self._job.store, name, units=None)
            return self._extract(unit, self._reporter)

    def end_run(self, state: str) -> None:
        self._stop.signal_name = "the end of the run"
        if self._reporter is not None:
            self._reporter.close(state)
            self._reporter = None

    def _extract(self, unit: Unit, reporter: Reporter) -> Outcome:
        reporter.begin(unit)
        # Bad images are counted by the client, over all units.
        budget = BadImageBudget(fraction=1, images=unit.shard.samples)
        try:
            (mark,) = extract_units(self._job, [unit], budget, self._stop, reporter.images)
        except Exception as error:
            reason = " ".join(str(error).split())
            if isinstance(error, InterruptedRunError):
                reporter.close("interrupted")
            else:
                reporter.fail(reason)
            if isinstance(error, MilanError) and not isinstance(error, StorageError):
                return Outcome(unit, None, reason)
            raise
        reporter.end(unit)
        return Outcome(unit, dataclasses.replace(mark, objects={}))


# By worker and not by process: workers of tests are threads of one.
_STATIONS: "WeakKeyDictionary[Worker, _Station]" = WeakKeyDictionary()
_ENDED: "WeakKeyDictionary[Worker, str]" = WeakKeyDictionary()
_SETTING_UP = threading.Lock()


def _station(assignment: Assignment, worker: Worker) -> _Station:
    with _SETTING_UP:
        station = _STATIONS.get(worker)
        if station is None or station.made_for != (assignment.spec, assignment.manifest_sha256):
            station = _STATIONS[worker] = _Station(assignment, worker)
        return station


def _device(assignment: Assignment, worker_name: str) -> str:
    """Pick a worker's device; local workers share out the machine's accelerators or its cores."""
    device = pick_device(assignment.spec.device)
    if assignment.local_workers is not None:
        if device.type == "cuda" and device.index is None:
            # A local cluster names its workers 0, 1, 2, …, and keeps the name on a restart.
            device = torch.device("cuda", int(worker_name) % torch.cuda.device_count())
        elif device.type == "cpu":
            cores = len(os.sched_getaffinity(0))
            torch.set_num_threads(max(1, cores // assignment.local_workers))
    return str(device)
