"""Reports of the running processes: `progress/NAME.json` in the store, read by `status` alone.

No stage reads a report, and no stage fails because of one. If a report cannot be written, this is
said once and the work goes on: if the store is out of reach, the next object that is written raises
a better error. Reports claim, lock and count nothing.

A thread of its own writes the reports, since each write may take minutes if the store does not
answer. Only the last report is waited for.
"""

import contextlib
import dataclasses
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

from milan_pipeline import storage
from milan_pipeline.core.console import NOTE
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import InterruptedRunError, MissingDataError, StorageError, reason_of
from milan_pipeline.provenance.record import timestamp_of, utc_text
from milan_pipeline.targets.units import Unit

logger = logging.getLogger(__name__)

FOLDER = "progress"
WRITE_EVERY = 30.0  # seconds at least between two reports, the first and the last apart
RATE_SPAN = 10.0  # seconds at least that the present speed is measured over


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressReport:
    """One process's progress.

    `state` is running, done, interrupted or failed. `failed` maps units to reasons. `units` is the
    number of units to do; None if they are handed out one by one. Times are in UTC.
    """

    name: str
    state: str
    started: str
    heard: str
    unit: str | None
    units: int | None
    units_done: int
    images_done: int
    images_per_second: float
    failed: dict[str, str]

    @property
    def heard_at(self) -> float:
        """When the report was written, in seconds since 1970."""
        return timestamp_of(self.heard)

    @property
    def seconds(self) -> float:
        """How long the process had worked when the report was written."""
        return self.heard_at - timestamp_of(self.started)


class Reporter:
    """Keeps one process's report in the store."""

    def __init__(
        self,
        store_url: str,
        name: str,
        *,
        units: int | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start a report; nothing is written before the first unit begins.

        Args:
            store_url: the store.
            name: name of the process; the same when it runs again.
            units: how many it will do; None if they are handed out one by one.
            clock: returns seconds since 1970.
        """
        self._name = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
        self._url = storage.join(store_url, FOLDER, f"{self._name}.json")
        self._clock = clock
        self._started = self._rated = clock()
        self._said: float | None = None
        self._units = units
        self._unit: Unit | None = None
        self._units_done = self._images = self._images_rated = 0
        self._rate = 0.0
        self._failed: dict[str, str] = {}
        self._complained = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._newest: bytes | None = None
        self._swapping = threading.Lock()

    def begin(self, unit: Unit) -> None:
        """Note that a unit begins; write a report if one is due."""
        self._unit = unit
        self._say_at_times()

    def images(self, count: int) -> None:
        """Count images of the present unit; write a report if one is due."""
        self._images += count
        self._say_at_times()

    def end(self, unit: Unit) -> None:
        """Count a unit as done."""
        self._units_done += 1
        self._failed.pop(unit.path, None)
        if self._unit == unit:
            self._unit = None

    def fail(self, reason: str) -> None:
        """Note that the present unit failed, and write that."""
        if self._unit is not None:
            self._failed[self._unit.path] = reason
        self._say("failed")
        self._unit = None

    def close(self, state: str) -> None:
        """Write how the work ended: done, interrupted or failed; wait until that is written."""
        self._say("failed" if self._failed else state)
        self.wait()

    def wait(self) -> None:
        """Wait until the newest report is written, or writing it has failed."""
        self._writer.submit(self._write).result()

    def _say_at_times(self) -> None:
        if self._said is None or self._clock() - self._said >= WRITE_EVERY:
            self._say("running")

    def _say(self, state: str) -> None:
        now = self._clock()
        if now - self._rated >= RATE_SPAN:
            self._rate = (self._images - self._images_rated) / (now - self._rated)
            self._rated, self._images_rated = now, self._images
        elif self._images_rated == 0 and now > self._rated:
            self._rate = self._images / (now - self._rated)
        self._said = now
        report = ProgressReport(
            name=self._name,
            state=state,
            started=utc_text(self._started),
            heard=utc_text(now),
            unit=None if self._unit is None else self._unit.path,
            units=self._units,
            units_done=self._units_done,
            images_done=self._images,
            images_per_second=round(self._rate, 2),
            failed=self._failed,
        )
        with self._swapping:
            self._newest = (json.dumps(dataclasses.asdict(report), indent=1) + "\n").encode()
        self._writer.submit(self._write)

    def _write(self) -> None:
        """Write the newest report, if it is not written yet; older ones are out of date."""
        with self._swapping:
            data, self._newest = self._newest, None
        if data is None:
            return
        try:
            storage.put_bytes(self._url, data)
        except StorageError as error:
            if not self._complained:
                logger.log(NOTE, "Note: %s; `status` will not know of this process", error)
            self._complained = True


@contextlib.contextmanager
def closing_report(reporter: Reporter) -> Iterator[Reporter]:
    """Write how the block ended; the report of a killed process keeps the state running."""
    try:
        yield reporter
    except InterruptedRunError:
        reporter.close("interrupted")
        raise
    except Exception as error:
        reporter.fail(reason_of(error))
        reporter.wait()
        raise
    reporter.close("done")


def read_reports(store_url: str, names: Collection[str] | None = None) -> list[ProgressReport]:
    """Read reports, by name; one that is damaged, or is deleted meanwhile, is left out.

    Args:
        store_url: the store.
        names: of the processes; None for all.

    Raises:
        StorageError: the store cannot be read.
    """
    folder = storage.join(store_url, FOLDER)
    reports = []
    for name in storage.list_names(folder):
        if names is not None and name.removesuffix(".json") not in names:
            continue
        with contextlib.suppress(DocumentError, MissingDataError):
            report = parsed(storage.read_bytes(storage.join(folder, name)), ProgressReport)
            _ = report.seconds  # raises if a time cannot be parsed
            reports.append(report)
    return reports
