"""What processes report of their work: `progress/NAME.json` in the folder of an output.

`status` reads these reports, and so tells who is at work, who has ended and how. No stage depends
on a report.

A report is no proof: that of a killed process keeps saying "running". So it names its process. One
of this machine is looked up. One of another machine counts as dead if its report is too old.
"""

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal

from milan_pipeline import storage
from milan_pipeline.core.process_marks import ProcessMark, is_alive
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import MissingDataError
from milan_pipeline.provenance.record import timestamp_of

FOLDER = "progress"
DEAD_AFTER = 300.0
"""Seconds without a report after which a process of another machine counts as dead: ten times the
longest time between two reports."""

Saying = Literal["running", "stopping", "done", "interrupted", "failed"]
"""What a process says of itself; "stopping" once a stop signal has come."""
WorkState = Literal["done", "running", "interrupted", "failed", "dead", "left"]
"""What is true of an output: "left" if there is work left that no process has begun or given up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressReport:
    """One process's progress.

    `failed` maps units to reasons. `units` is the number of units to do (of a run: steps); None if
    they are handed out one by one. Times are in UTC.
    """

    name: str
    state: Saying
    process: ProcessMark
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

    def true_state(self, now: float) -> WorkState:
        """Return what is true of the process at a time, whatever it said last.

        A process that has ended after it was asked to stop is "interrupted". One that has ended
        without any word is "dead". One that waits for a unit of a Dask client, and has not been
        heard of for long, is "left".
        """
        alive = is_alive(self.process)
        is_old = now - self.heard_at > DEAD_AFTER
        has_ended = alive is False or (alive is None and is_old)
        match self.state:
            case "running" | "stopping" if not has_ended:
                return "left" if self.unit is None and is_old else "running"
            case "running":
                return "dead"
            case "stopping":
                return "interrupted"
            case said:
                return said


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessStatus:
    """A process that has worked on an output, and what is true of it; fields as in its report."""

    name: str
    state: WorkState
    host: str
    pid: int
    started: str
    heard: str
    is_here: bool
    unit: str | None
    units: int | None
    units_done: int
    images_per_second: float
    failed: dict[str, str]


def processes_of(reports: Sequence[ProgressReport], now: float) -> list[ProcessStatus]:
    """Return what is true of the processes at a time.

    Args:
        reports: of all processes that have worked on an output.
        now: seconds since 1970, by a clock that agrees with those of the processes.
    """
    return [
        ProcessStatus(
            name=report.name,
            state=report.true_state(now),
            host=report.process.host,
            pid=report.process.pid,
            started=report.started,
            heard=report.heard,
            is_here=is_alive(report.process) is not None,
            unit=report.unit,
            units=report.units,
            units_done=report.units_done,
            images_per_second=report.images_per_second,
            failed=report.failed,
        )
        for report in reports
    ]


def state_of_work(
    processes: Sequence[ProcessStatus], *, done: bool
) -> tuple[WorkState, str | None]:
    """Return what is true of an output, and since when if a process tells that.

    Args:
        processes: all that have worked on it.
        done: whether nothing is left to do.
    """
    running = [process.started for process in processes if process.state == "running"]
    ended = [process for process in processes if process.state not in ("done", "left")]
    if done:
        return "done", None
    if running:
        return "running", min(running)
    if not ended:
        return "left", None
    last = max(ended, key=lambda process: process.heard)
    return last.state, last.heard


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
