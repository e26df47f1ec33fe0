"""`milan-pipeline status FOLDER`: how far an output is, and whether anybody works on it."""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument
from milan_pipeline.core.console import bytes_text, report
from milan_pipeline.core.counting import singular

if TYPE_CHECKING:
    from milan_pipeline.provenance.progress_reports import ProcessStatus
    from milan_pipeline.report.folder_status import FolderStatus
    from milan_pipeline.targets.status import Status

NAMED_UNITS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowStatus:
    """Say how far FOLDER is: what is done and left, the speed, the time left, and who is at work.

    FOLDER is a target store, shards, a run, the scores of a probe, an export, or a local folder
    with any of these below it. Paths and URLs will do. Nothing is written.

    The state is one of six. Nothing is left to do: done. A process is at work: running. The last
    one stopped as asked: interrupted. It ended with an error: failed. It ended without a word:
    dead. There is work left that no process has begun: left. A process of this machine is looked
    up. One of another machine counts as dead if nothing was heard of it for five minutes. Below a
    folder, an output that is damaged or closed to you is shown as unreadable, with the reason.
    """

    folder: str = argument()


def run(config: ShowStatus) -> None:
    """Read the folder and print what it says."""
    from milan_pipeline.report.folder_status import folder_status

    status = folder_status(config.folder)
    report(_lines(status), status.document)


def _lines(status: "FolderStatus") -> Iterator[str]:
    yield _headline(status)
    for part in status.parts:
        yield f"  {_headline(part)}"
    store = status.store
    if store is not None:
        yield f"teacher: {store.teacher} in {store.precision}, codec: {store.codec}"
        yield from (*_unit_lines(store), _images_line(store), *_ledger_lines(store))
    yield from map(_process_line, status.processes)


def _headline(status: "FolderStatus") -> str:
    """Return one line of any output: its state, counts, speed and time left."""
    if status.error is not None:
        return f"{status.path}: {status.state}: {status.error}"
    since = "" if status.since is None else f" since {status.since}"
    of_all = "" if status.total is None else f" of {status.total}"
    number = status.done if status.total is None else status.total
    unit = singular(status.unit) if number == 1 else status.unit
    parts = [f"{status.path}: {status.state}{since}", f"{status.done}{of_all} {unit}"]
    if status.images_per_second:
        parts.append(f"{status.images_per_second:g} images/s")
    if status.seconds_left is not None:
        parts.append(f"{_duration(status.seconds_left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    return str(dt.timedelta(seconds=round(seconds)))


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


def _images_line(status: "Status") -> str:
    if status.seconds_left is not None:
        time_left = f"{_duration(status.seconds_left)} left"
    elif not status.images_left:
        time_left = "none left"
    elif status.state == "running":
        time_left = "no speed is known yet"
    else:
        time_left = "no process is at work"
    speed = (
        f"{status.images_per_second:g}/s now, {status.images_per_second_on_average:g}/s on average"
    )
    return f"images: {status.images_left} left, {speed}; {time_left}"


def _ledger_lines(status: "Status") -> list[str]:
    skipped = sum(status.skipped.values())
    size = bytes_text(status.bytes)
    lines = [f"targets: {status.targets}, bytes: about {size}; {skipped} skipped"]
    lines += [f"  {count}: {reason}" for reason, count in status.skipped.items()]
    return lines + [f"  {place}" for place in status.first_skipped]


def _process_line(process: "ProcessStatus") -> str:
    of_all = "" if process.units is None else f" of {process.units}"
    line = f"{process.name}: {process.state}, {process.units_done}{of_all} done"
    if process.state == "running":
        line += f", process {process.pid} on {process.host}"
        if process.unit is not None and process.unit != process.name:
            line += f", working on {process.unit}"
        return f"{line}, {process.images_per_second:g} images/s"
    if process.state == "dead" and process.is_here:
        return f"{line}; process {process.pid} on {process.host} has ended without a word"
    if process.state == "dead":
        return f"{line}; nothing heard from {process.host} since {process.heard}"
    reasons = [f"{unit}: {reason}" for unit, reason in process.failed.items()]
    return f"{line} at {process.heard}" + "".join(f"; {reason}" for reason in reasons[:1])


command = stage_command(
    "status",
    ShowStatus,
    run=run,
    dry_run=None,
    example="milan-pipeline status targets.zarr",
)
