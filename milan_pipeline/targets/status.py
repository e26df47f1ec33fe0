"""The progress of an extraction or transcoding: units by state, speed, and what was not readable.

All of it comes from the store alone. The record has the full list of units. The marks tell which
units are done, and which must be done again and why. The progress reports tell which processes are
running.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from milan_pipeline.codecs.registry import spec_of
from milan_pipeline.images.budget import Skipped
from milan_pipeline.images.views import view_numbers
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.provenance.progress_reports import (
    ProcessStatus,
    WorkState,
    processes_of,
    read_reports,
    state_of_work,
)
from milan_pipeline.targets.layout import read_identity, record_dtype
from milan_pipeline.targets.marks.columns import BriefMark
from milan_pipeline.targets.store_record import read_store_record
from milan_pipeline.targets.unit_list import FinishedUnits, UnitList, undone_units
from milan_pipeline.targets.units import NOT_DONE, Unit, read_marks, view_name

STATES = ("done", "running", "failed", "stale", "missing")
NAMED_SKIPPED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """The progress of an extraction or transcoding.

    Attributes:
        state: what is true of the store: done, running, interrupted, failed, dead or left.
        since: since when, if that is known.
        stage: the stage that writes the store.
        teacher: the value of --teacher when the targets were extracted.
        precision: precision of the teacher.
        codec: name of the store's codec.
        views: for each view, how many units are in each of `STATES`.
        stale: units that were done before and must be done again, each with the reason.
        failed: units that failed in a process, each with the reason.
        images_left: number of images to run through the teacher, or to transcode.
        images_per_second: present speed of all running processes together.
        images_per_second_on_average: speed of all running processes since they began.
        seconds_left: time left at the present speed; None if no process is running.
        targets: number of targets in the units that are done.
        bytes: about how many bytes those targets take.
        skipped: how many images could not be read, by kind of reason.
        first_skipped: a few of these images, as `shard:key (reason)`.
        processes: those that have worked on the store, by name.
    """

    state: WorkState
    since: str | None
    stage: str
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
    processes: list[ProcessStatus]

    def count(self, state: str) -> int:
        """Return how many units of all views are in a state."""
        return sum(view[state] for view in self.views.values())


def read_status(store_url: str, *, now: float) -> Status:
    """Read the progress of the extraction or transcoding into a store.

    Args:
        store_url: the target store.
        now: seconds since 1970, by a clock that agrees with those of the processes.

    Raises:
        MissingDataError: there is no store, or it has no record.
    """
    identity = read_identity(store_url)
    record = read_store_record(store_url, identity)
    units = record.units()
    marks = read_marks(store_url, record.views)
    left = undone_units(units, marks, content_hash(identity))
    reports = read_reports(store_url)
    processes = processes_of(reports, now)
    running = [report for report in reports if report.true_state(now) == "running"]
    by_path = {unit.path: reason for unit, reason in left.items()}
    in_hand = {report.unit for report in running}
    failed = {
        path: reason
        for report in reports
        for path, reason in report.failed.items()
        if path in by_path and path not in in_hand
    }
    done = FinishedUnits(units, marks, content_hash(identity))
    rate = sum(report.images_per_second for report in running)
    images_left = sum(unit.shard.samples for unit in left)
    targets = done.samples
    state, since = state_of_work(processes, done=record.state == "done" and not left)
    return Status(
        state=state,
        since=record.ended if state == "done" else since,
        stage=record.stage,
        teacher=str(record.extraction.get("teacher", identity["teacher"]["name"])),
        precision=identity["teacher"]["precision"],
        codec=identity["codec"]["name"],
        views=_by_view(units, left, in_hand, failed),
        stale={path: reason for path, reason in by_path.items() if reason != NOT_DONE},
        failed=failed,
        images_left=images_left,
        images_per_second=round(rate, 2),
        images_per_second_on_average=round(
            sum(report.images_done / max(report.seconds, 1.0) for report in running), 2
        ),
        seconds_left=round(images_left / rate, 1) if rate else None,
        targets=targets,
        bytes=targets * _target_bytes(identity),
        skipped=skipped_by_reason(row for _, mark in done.incomplete() for row in mark.skipped),
        first_skipped=_first_skipped(done.incomplete()),
        processes=processes,
    )


def _target_bytes(identity: Identity) -> int:
    height, width = identity["teacher"]["grid"]
    codec, numbers = spec_of(identity["codec"]), view_numbers(identity["view_policy"])
    return record_dtype(codec, height * width, identity["teacher"]["width"], numbers).itemsize


def _by_view(
    units: UnitList,
    left: Mapping[Unit, str],
    in_hand: Iterable[str | None],
    failed: Mapping[str, str],
) -> dict[str, dict[str, int]]:
    """Count the units of each view by state; each unit is in one state."""
    all_done = dict.fromkeys(STATES, 0) | {"done": len(units.shards)}
    views = {view_name(view): dict(all_done) for view in range(units.views)}
    at_work = set(in_hand)
    for unit, reason in left.items():
        counts = views[view_name(unit.view)]
        counts["done"] -= 1
        if unit.path in at_work:
            counts["running"] += 1
        elif unit.path in failed:
            counts["failed"] += 1
        else:
            counts["missing" if reason == NOT_DONE else "stale"] += 1
    return views


def skipped_by_reason(rows: Iterable[Skipped]) -> dict[str, int]:
    """Count rows of ledgers by the kind of their reason."""
    kinds = Counter(kind_of_reason(row["reason"]) for row in rows)
    return dict(kinds.most_common())


def kind_of_reason(reason: str) -> str:
    """Return the text before the details, such as a decoder's message."""
    return reason.partition(" (")[0]


def _first_skipped(units: Iterable[tuple[Unit, BriefMark]]) -> list[str]:
    rows = {
        f"{mark.shard}:{row['key']}": row["reason"] for _, mark in units for row in mark.skipped
    }
    return [f"{place} ({reason})" for place, reason in list(rows.items())[:NAMED_SKIPPED]]
