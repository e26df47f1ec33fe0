"""Extraction as Dask workers do it: load the teacher once, then extract unit after unit."""

import dataclasses
import threading

from distributed import get_worker

from milan_pipeline.devices import pick_device
from milan_pipeline.errors import InterruptedRunError, MismatchError
from milan_pipeline.extraction import ExtractionJob, extract_units
from milan_pipeline.identity import require_same
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.job_spec import JobSpec
from milan_pipeline.ledger import BadImageBudget
from milan_pipeline.target_store import read_identity
from milan_pipeline.teacher import Teacher
from milan_pipeline.units import Mark, Unit, read_mark, why_undone
from milan_pipeline.work import Work
from milan_pipeline.work_reports import Reporter


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionSpec:
    """What every worker is told.

    Attributes:
        job: the extraction.
        manifest_sha256: of the images that the units were listed from.
        reports: what the names of the workers' progress reports begin with.
    """

    job: JobSpec
    manifest_sha256: str
    reports: str

    def begin(self, number: int | None) -> "ExtractionWork":
        """Load the teacher.

        Raises:
            MismatchError: images, store or teacher are not the client's.
            StorageError: a store cannot be read; that may pass.
        """
        job = self.job
        manifest = job.manifest()
        if manifest.sha256 != self.manifest_sha256:
            raise MismatchError(f"{job.images} lists other images there than for the client")
        stored = read_identity(job.store)
        teacher = Teacher.load(job.teacher, device=str(pick_device(job.device, number)))
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
        """Extract one unit, unless its mark is there; return its mark without objects.

        Raises:
            DataError: its shard is damaged, or cannot be encoded.
            InterruptedRunError: the run has ended.
            StorageError: a store cannot be read or written; that may pass.
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
        """Say in the report how the run ended."""
        if self._reporter is not None:
            self._reporter.close(state)
            self._reporter = None

    def _extract(self, unit: Unit, stop: StopRequest, reporter: Reporter) -> Mark:
        reporter.begin(unit)
        # Bad images are counted by the client, over all units.
        budget = BadImageBudget(fraction=1, images=unit.shard.samples)
        try:
            (mark,) = extract_units(self._job, [unit], budget, stop, reporter.images)
        except InterruptedRunError:
            reporter.close("interrupted")
            raise
        except Exception as error:
            reporter.fail(" ".join(str(error).split()))
            raise
        reporter.end(unit)
        return mark
