"""`milan-pipeline status STORE`: how far an extraction is, whichever processes work on it."""

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument
from milan_pipeline.core.console import bytes_text, report

if TYPE_CHECKING:
    from milan_pipeline.targets.status import Status, Worker

NAMED_UNITS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowStatus:
    """Say how far an extraction into STORE is: units done and left, speed, time left.

    STORE is any path or URL that extract-targets or transcode can write to. Nothing is written.
    """

    store: str = argument()


def run(config: ShowStatus) -> None:
    """Read the store and print what it says."""
    import time

    from milan_pipeline.targets.status import read_status

    status = read_status(config.store, now=time.time())
    lines = [
        f"{config.store}: {status.state}",
        f"teacher: {status.teacher} in {status.precision}, codec: {status.codec}",
        *_unit_lines(status),
        *_progress_lines(status),
        *_ledger_lines(status),
        *map(_worker_line, status.workers),
    ]
    report(lines, dataclasses.asdict(status))


def _unit_lines(status: "Status") -> list[str]:
    from milan_pipeline.targets.status import STATES

    total = {state: status.count(state) for state in STATES}
    lines = [
        f"{name}: " + ", ".join(f"{counts[state]} {state}" for state in STATES)
        for name, counts in [
            ("units", total),
            *((f"  {name}", v) for name, v in status.views.items()),
        ]
    ]
    for units in (status.failed, status.stale):
        lines += [f"  {path}: {reason}" for path, reason in list(units.items())[:NAMED_UNITS]]
        if len(units) > NAMED_UNITS:
            lines.append(f"  and {len(units) - NAMED_UNITS} more")
    return lines


def _progress_lines(status: "Status") -> list[str]:
    if status.seconds_left is None:
        time_left = "no process is at work" if status.images_left else "none left"
    else:
        time_left = f"{dt.timedelta(seconds=round(status.seconds_left))} left"
    speed = (
        f"{status.images_per_second:g}/s now, {status.images_per_second_on_average:g}/s on average"
    )
    return [f"images: {status.images_left} left, {speed}; {time_left}"]


def _ledger_lines(status: "Status") -> list[str]:
    skipped = sum(status.skipped.values())
    size = bytes_text(status.bytes)
    lines = [f"targets: {status.targets}, bytes: about {size}; {skipped} skipped"]
    lines += [f"  {count}: {reason}" for reason, count in status.skipped.items()]
    return lines + [f"  {place}" for place in status.first_skipped]


def _worker_line(worker: "Worker") -> str:
    state = f"silent since {worker.heard}" if worker.state == "silent" else worker.state
    of_all = "" if worker.units is None else f" of {worker.units}"
    line = f"{worker.name}: {state}, {worker.units_done}{of_all} units done"
    if worker.unit:
        line += f", working on {worker.unit} at {worker.images_per_second:g} images/s"
    return line


command = stage_command(
    "status",
    ShowStatus,
    run=run,
    dry_run=None,
    example="milan-pipeline status targets.zarr",
)
