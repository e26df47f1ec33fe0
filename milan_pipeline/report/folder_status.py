"""The one answer to "how far is it?": of any folder that a stage writes, or of all below a folder.

People ask it by `status`, jobs by its JSON, and `submit` by `is_finished`.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from milan_pipeline import storage
from milan_pipeline.errors import MilanError, MissingDataError
from milan_pipeline.provenance.progress_reports import (
    ProcessStatus,
    WorkState,
    processes_of,
    read_reports,
    state_of_work,
)
from milan_pipeline.provenance.record import ended_at, read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME, checkpoints_by_step, read_state
from milan_pipeline.report.folder_kind import (
    RECORDS,
    RESULTS,
    Kind,
    Result,
    folder_kind,
    give_whole,
    is_own_run,
    outputs_below,
    result_of,
)
from milan_pipeline.shards.totals import read_totals
from milan_pipeline.targets.status import Status, read_status

OutputState = WorkState | Literal["unreadable"]
WORST_FIRST: tuple[OutputState, ...] = (
    "running",
    "unreadable",
    "failed",
    "dead",
    "interrupted",
    "left",
)

OF_SOME_KINDS = ("store", "parts", "processes", "error")
"""Fields that are left out of the document where they say nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderStatus:
    """How far an output is.

    Attributes:
        path: its path or URL.
        kind: what the folder is; "scores" of a probe, "export", or "folder" with outputs below
            it; None if it is too damaged to tell.
        stage: the command that writes it; None if that is not known.
        state: done, running, interrupted, failed, dead, or left: nobody works on what is left. An
            output below a folder may also be unreadable: damaged, or not ours to read.
        since: since when (UTC), if that is known.
        unit: what is counted: units, shards, steps, scores, exports or outputs.
        done: how many of them are there. Steps count if a checkpoint keeps them, or a process that
            runs has taken them.
        total: how many there must be; None if that is not known.
        images_per_second: of all processes that run.
        seconds_left: at that speed; None if no process runs.
        processes: those that have worked on it, and what is true of each.
        store: more about a target store.
        parts: the outputs below a folder.
        error: what keeps it from being read, if it is unreadable.
    """

    path: str
    kind: Kind | Result | Literal["folder"] | None
    stage: str | None
    state: OutputState
    since: str | None
    unit: str
    done: int
    total: int | None
    images_per_second: float = 0.0
    seconds_left: float | None = None
    processes: Sequence[ProcessStatus] = ()
    store: Status | None = None
    parts: Sequence["FolderStatus"] = ()
    error: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The same as JSON; fields that only other kinds have are left out."""
        plain = dataclasses.asdict(self)
        return {k: v for k, v in plain.items() if v or k not in OF_SOME_KINDS}


def folder_status(url: str, now: float | None = None) -> FolderStatus:
    """Find out how far an output is, or all that lie below a folder.

    Args:
        url: path or URL of the folder.
        now: seconds since 1970, by a clock that agrees with those of the processes.

    Raises:
        MissingDataError: there is no output.
        DataError: it is damaged.
        StorageError: it cannot be read.
    """
    now = time.time() if now is None else now
    try:
        kind = folder_kind(url)
    except MissingDataError:
        kind = None
    if kind is None or (kind == "run" and not is_own_run(url)):
        result = result_of(url)
        return _status_below(url, now) if result is None else _result_status(url, result, now)
    if kind == "target store":
        return _store_status(url, now)
    return run_status(url, now) if kind == "run" else shards_status(url, kind, now)


def is_finished(url: str) -> bool:
    """Tell whether an output is there and done; whoever wants more of it must ask the stage."""
    try:
        return folder_status(url).state == "done"
    except MissingDataError:
        return False


def _store_status(url: str, now: float) -> FolderStatus:
    store = read_status(url, now=now)
    return FolderStatus(
        path=url,
        kind="target store",
        stage=store.stage,
        state=store.state,
        since=store.since,
        unit="units",
        done=store.count("done"),
        total=sum(map(store.count, ("done", "running", "failed", "stale", "missing"))),
        images_per_second=store.images_per_second,
        seconds_left=store.seconds_left,
        processes=store.processes,
        store=store,
    )


def shards_status(url: str, kind: Kind, now: float) -> FolderStatus:
    """Find out how far shards of a kind are."""
    what = "targets" if kind == "target shards" else "images"
    manifest, totals = read_totals(url, kind=what)
    record = _first_record(url, RECORDS[kind])
    done = manifest.complete and (record is None or record["state"] == "done")
    return _status(
        url,
        kind,
        record,
        now,
        done=done,
        unit="shards",
        there=totals.shards,
        total=totals.shards if done else None,
        images_a_unit=totals.samples / max(1, totals.shards),
    )


def run_status(url: str, now: float | None = None) -> FolderStatus:
    """Find out how far a run is."""
    record, state = read_record(storage.join(url, CONFIG_NAME)), read_state(url)
    if record is None:
        raise MissingDataError(f"{url} holds no run; `pretrain` makes one")
    path = storage.local_path(url)
    stated: Mapping[str, Any] = state or {}
    kept = 0 if path is None else max(checkpoints_by_step(path), default=0)
    return _status(
        url,
        "run",
        record,
        time.time() if now is None else now,
        done=record["state"] == "done" and stated.get("state", "done") == "done",
        unit="steps",
        there=max(kept, stated.get("step", 0)),
        total=stated.get("total_steps"),
        images_a_unit=record["config"].get("batch_size") or 0,
    )


def _result_status(url: str, kind: Result, now: float) -> FolderStatus:
    record = read_record(storage.join(url, RESULTS[kind]))
    done = record is not None and record["state"] == "done"
    unit = "scores" if kind == "scores" else "exports"
    return _status(url, kind, record, now, done=done, unit=unit, there=int(done), total=1)


def _status(
    url: str,
    kind: Kind | Result,
    record: dict[str, Any] | None,
    now: float,
    *,
    done: bool,
    unit: str,
    there: int,
    total: int | None,
    images_a_unit: float = 0,
) -> FolderStatus:
    """Join what an output's record and files tell with what its processes report."""
    processes = processes_of(read_reports(url), now)
    state, since = state_of_work(processes, done=done)
    if done and record is not None:
        since = ended_at(record)
    running = [process for process in processes if process.state == "running"]
    there = max([there, *(process.units_done for process in running)])
    if total is None:
        total = max((process.units or 0 for process in processes), default=0) or None
    rate = sum(process.images_per_second for process in running)
    images_left = None if total is None else (total - there) * images_a_unit
    return FolderStatus(
        path=url,
        kind=kind,
        stage=None if record is None else record["stage"],
        state=state,
        since=since,
        unit=unit,
        done=there,
        total=total,
        images_per_second=rate,
        seconds_left=round(images_left / rate, 1) if rate and images_left else None,
        processes=processes,
    )


def _first_record(url: str, stages: Sequence[str]) -> dict[str, Any] | None:
    found = (read_record(storage.join(url, f"{stage}.json")) for stage in stages)
    return next((record for record in found if record is not None), None)


def _status_below(url: str, now: float) -> FolderStatus:
    """Find all outputs below a local folder, and join how far they are."""
    root = storage.local_path(url)
    outputs = [] if root is None or not root.is_dir() else outputs_below(root)
    if not outputs:
        raise MissingDataError(_no_output(url))
    parts = [_part(str(path), now) for path in outputs]
    states = {part.state for part in parts}
    return FolderStatus(
        path=url,
        kind="folder",
        stage=None,
        state=next((state for state in WORST_FIRST if state in states), "done"),
        since=None,
        unit="outputs",
        done=sum(part.state == "done" for part in parts),
        total=len(parts),
        parts=parts,
    )


def _no_output(url: str) -> str:
    """Say that a place is no output and has none below it, and what to give instead."""
    root = storage.local_path(url)
    give = "give the folder of a target store, shards, a run, scores or an export"
    if root is None:  # nothing is looked for below a URL
        return f"{url} is no folder that a stage wrote; {give}"
    if root.is_dir():
        what = "holds nothing that a stage wrote"
    else:
        what = "is no folder that a stage wrote"
        what += "" if root.exists() else ", and does not exist"
    return f"{url} {what}; {give_whole(url) or f'{give}, or one with such folders in it'}"


def _part(url: str, now: float) -> FolderStatus:
    """Find out how far one of many outputs is; what is wrong with it does not hide the others."""
    kind = None
    try:
        if result_of(url) is None:
            kind = folder_kind(url)
        return folder_status(url, now)
    except MilanError as error:
        return FolderStatus(
            path=url,
            kind=kind,
            stage=None,
            state="unreadable",
            since=None,
            unit="outputs",
            done=0,
            total=1,
            error=str(error),
        )
