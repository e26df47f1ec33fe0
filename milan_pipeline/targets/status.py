"""How far an extraction or transcoding is: its units by state, its speed, what it could not read.

Everything is told from the store alone: the record has the full list of units, the marks say what
is done and why what was done before must be done again, and the progress reports say who is at
work. What a report says is not proof: a process that was killed goes on saying "running", until it
has been silent for long.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from milan_pipeline.images.budget import Skipped
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.progress_reports import Report, read_reports
from milan_pipeline.targets.shard_records import layout_of
from milan_pipeline.targets.store import read_store_record
from milan_pipeline.targets.units import NOT_DONE, Mark, Unit, read_marks, undone_units, view_name

SILENT_SECONDS = 300.0
"""Ten times as long as a process at work leaves between two reports."""

STATES = ("done", "running", "failed", "stale", "missing")
NAMED_SKIPPED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """A process and what it said last; `state` is "silent" where it said so too long ago."""

    name: str
    state: str
    heard: str
    unit: str | None
    units: int | None
    units_done: int
    images_per_second: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """How far an extraction or transcoding is.

    Attributes:
        state: of the stage's record: running or done.
        teacher: as --teacher named it when the targets were extracted.
        precision: of the teacher.
        codec: how the store keeps targets.
        views: for each view, how many units are in each of `STATES`.
        stale: units that were done before and must be again, with why.
        failed: units that a process gave up, with why.
        images_left: to run through the teacher, or to transcode.
        images_per_second: of all running processes together, at present.
        images_per_second_on_average: the same, since they began.
        seconds_left: at the present speed; None while nobody is running.
        targets: in the units that are done.
        bytes: that those take, about.
        skipped: how many images could not be read, by kind of reason.
        first_skipped: a few of them, as `shard:key (reason)`.
        workers: the processes, by name.
    """

    state: str
    teacher: str
    precision: str
    codec: str
    views: dict[str, dict[str, int]]
    stale: dict[str, str]
    failed: dict[str, str]
    images_left: int
    images_per_second: float
    images_per_second_on_average: float
    seconds_left: float | None
    targets: int
    bytes: int
    skipped: dict[str, int]
    first_skipped: list[str]
    workers: list[Worker]

    def count(self, state: str) -> int:
        """Return how many units of all views are in a state."""
        return sum(view[state] for view in self.views.values())


def read_status(store_url: str, *, now: float) -> Status:
    """Tell how far the extraction, or transcoding, into a store is.

    Args:
        store_url: the target store.
        now: seconds since 1970, by a clock like those of the processes at work.

    Raises:
        MissingDataError: there is no store, or its stage left no record in it.
    """
    identity = read_identity(store_url)
    record = read_store_record(store_url, identity)
    units = record.units()
    marks = read_marks(store_url, record.views, objects=False)
    left = undone_units(units, marks, content_hash(identity))
    reports = read_reports(store_url)
    running = [report for report in reports if _is_heard(report, now)]
    by_path = {unit.path: reason for unit, reason in left.items()}
    in_hand = {report.unit for report in running}
    failed = {
        path: reason
        for report in reports
        for path, reason in report.failed.items()
        if path in by_path and path not in in_hand
    }
    done = [marks[unit.mark_path] for unit in units if unit not in left]
    rate = sum(report.images_per_second for report in running)
    images_left = sum(unit.shard.samples for unit in left)
    targets = sum(mark.n for mark in done)
    return Status(
        state=record.state,
        teacher=str(record.extraction.get("teacher", identity["teacher"]["name"])),
        precision=identity["teacher"]["precision"],
        codec=identity["codec"]["name"],
        views=_by_view(units, by_path, in_hand, failed),
        stale={path: reason for path, reason in by_path.items() if reason != NOT_DONE},
        failed=failed,
        images_left=images_left,
        images_per_second=round(rate, 2),
        images_per_second_on_average=round(
            sum(report.images_done / max(report.seconds, 1.0) for report in running), 2
        ),
        seconds_left=round(images_left / rate, 1) if rate else None,
        targets=targets,
        bytes=targets * layout_of(identity).dtype.itemsize,
        skipped=_skipped_by_reason(done),
        first_skipped=_first_skipped(done),
        workers=[_worker(report, now) for report in reports],
    )


def _is_heard(report: Report, now: float) -> bool:
    return report.state == "running" and now - report.heard_at <= SILENT_SECONDS


def _worker(report: Report, now: float) -> Worker:
    silent = report.state == "running" and not _is_heard(report, now)
    return Worker(
        name=report.name,
        state="silent" if silent else report.state,
        heard=report.heard,
        unit=report.unit,
        units=report.units,
        units_done=report.units_done,
        images_per_second=report.images_per_second,
    )


def _by_view(
    units: Sequence[Unit],
    left: Mapping[str, str],
    in_hand: Iterable[str | None],
    failed: Mapping[str, str],
) -> dict[str, dict[str, int]]:
    """Count each unit once, by what is known last of it."""
    views: dict[str, dict[str, int]] = {}
    at_work = set(in_hand)
    for unit in units:
        counts = views.setdefault(view_name(unit.view), dict.fromkeys(STATES, 0))
        if unit.path not in left:
            counts["done"] += 1
        elif unit.path in at_work:
            counts["running"] += 1
        elif unit.path in failed:
            counts["failed"] += 1
        else:
            counts["missing" if left[unit.path] == NOT_DONE else "stale"] += 1
    return views


def _skipped_rows(marks: Iterable[Mark]) -> Iterable[tuple[Mark, Skipped]]:
    return ((mark, row) for mark in marks for row in mark.skipped)


def _skipped_by_reason(marks: Iterable[Mark]) -> dict[str, int]:
    """Count by what comes before the particulars: a decoder's words, an image's size."""
    kinds = Counter(row["reason"].partition(" (")[0] for _, row in _skipped_rows(marks))
    return dict(kinds.most_common())


def _first_skipped(marks: Iterable[Mark]) -> list[str]:
    rows = {f"{mark.shard}:{row['key']}": row["reason"] for mark, row in _skipped_rows(marks)}
    return [f"{place} ({reason})" for place, reason in list(rows.items())[:NAMED_SKIPPED]]
