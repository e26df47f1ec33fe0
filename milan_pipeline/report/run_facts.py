"""Reads the facts of a run: what it trains, its progress, its speed and its results.

What a run has logged of its steps are columns.

Legend: S logged steps.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.data.unreadable import unreadable_images
from milan_pipeline.encoders.load import fingerprint
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.evaluate.scores_file import Result, find_results
from milan_pipeline.models.build import settled_student
from milan_pipeline.models.weight_files import ENCODER
from milan_pipeline.provenance.record import read_record
from milan_pipeline.report.facts import Facts, flattened
from milan_pipeline.report.folder_status import run_status
from milan_pipeline.training.checkpoints import newest_checkpoint
from milan_pipeline.training.run_folder import LOG_NAME
from milan_pipeline.training.state import CONFIG_NAME, State, read_state

NAMED = 5
History = dict[str, NDArray[np.float64]]
"""Columns (S,) by the names of `log.jsonl`; NaN where a step does not tell."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunReport:
    """A run as its folder tells of it.

    Attributes:
        folder: of the run.
        name: what plots and tables call it.
        record: its `config.json`.
        state: its `state.json`; None before the first step.
        history: its log.
        results: what `probe`, `finetune` and `segment` measured of its encoder.
    """

    folder: Path
    name: str
    record: dict[str, Any]
    state: State | None
    history: History
    results: list[Result]

    @property
    def step(self) -> int:
        """Steps that are done: by its log, as its state is written when it begins and ends."""
        logged = self.history.get("step", ())
        stated = 0 if self.state is None else self.state.get("step", 0)
        return max(stated, int(max(logged, default=0)))

    @functools.cached_property  # the newest checkpoint is found by its hashes: gigabytes are read
    def facts(self) -> Facts:
        """All of it for a terminal; keys are those of the record and the log."""
        newest, unreadable = newest_checkpoint(self.folder), _unreadable(self.folder)
        total = None if self.state is None else self.state.get("total_steps")
        return {
            "run": {
                "path": str(self.folder),
                "stage": self.record["stage"],
                "state": run_status(str(self.folder)).state,
                "step": self.step,
                "total_steps": total,
                "newest_checkpoint": None if newest is None else newest[1].name,
                "encoder_exported": storage.exists(str(self.folder / ENCODER)),
            },
            "options": _options(self.record),
            "inputs": {
                name: value
                for name, value in flattened(self.record["inputs"])
                if ".identity." not in f".{name}"
            },
            "latest steps": latest(self.history),
            "ledger": {"unreadable_images": len(unreadable), "first": unreadable[:NAMED]},
            "results": {
                f"{result.stage} {metric} ({result.name}), %": value
                for result in self.results
                for metric, value in result.metrics.items()
            },
        }


def read_run(url: str, results: tuple[str, ...] = ()) -> RunReport:
    """Read what a run folder tells.

    Args:
        url: a local folder.
        results: folders with further results of the run, in them or below them.

    Raises:
        ConfigError: the folder is not local.
        MissingDataError: it holds no run, or a folder of `results` no result at all.
        DataError: it is damaged.
    """
    place = storage.local_path(url)
    if place is None:
        raise ConfigError(f"{url} is no local folder; copy the run to this machine")
    folder = Path(place)
    record = read_record(str(folder / CONFIG_NAME))
    if record is None:
        raise MissingDataError(f"{url} holds no run; `pretrain` makes one")
    batch = record.get("config", {}).get("batch_size")
    return RunReport(
        folder=folder,
        name=folder.name,
        record=record,
        state=read_state(str(folder)),
        history=with_step_seconds(read_history(folder), batch),
        results=_results_of(folder, results),
    )


def _options(record: dict[str, Any]) -> dict[str, Any]:
    """The options; of a student, also the sizes that were left to its name and the targets."""
    options = dict(flattened(record["content"]))
    if "student" in options:
        identity = record["inputs"].get("identity")
        grid = None if identity is None else tuple(identity["teacher"]["grid"])
        sizes = settled_student(record["content"], grid)
        options |= {name: size for name, size in sizes.items() if options.get(name) is None}
    return options


def _unreadable(folder: Path) -> list[str]:
    """Say which images a run could not decode, and why."""
    rows = [row for what in ("train", "val") for row in unreadable_images(folder, what)]
    return [f"{row['shard']}:{row['key']} ({row['reason']})" for row in rows]


def _results_of(folder: Path, places: tuple[str, ...]) -> list[Result]:
    """Find results below the run, and elsewhere those of an encoder with its very weights."""
    own, others = _found(str(folder)), find_results(places) if places else []
    ours = fingerprint(str(folder)) if storage.exists(str(folder / ENCODER)) else None
    matching = [result for result in others if result.inputs.get("encoder") == ours]
    return list({result.folder: result for result in own + matching}.values())


def _found(folder: str) -> list[Result]:
    """Results below a run are optional."""
    try:
        return find_results([folder])
    except MissingDataError:
        return []


SUMMARY_STEPS = 100
"""The last steps that a run's latest figures are means of."""


def read_history(run: Path) -> History:
    """Read `log.jsonl`; without it there is nothing to tell: no columns.

    A line that a kill cut short, or that is no row, counts as never written, as on resume.
    """
    path = run / LOG_NAME
    there = storage.exists(str(path))
    lines = storage.read_bytes(str(path)).decode(errors="replace").splitlines() if there else []
    rows = [row for row in map(_row_of, lines) if row is not None]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


def latest(history: History) -> dict[str, Any]:
    """Return the means of the last steps; of memory, the most."""
    last = {
        name: column[np.isfinite(column)][-SUMMARY_STEPS:]
        for name, column in history.items()
        if np.isfinite(column).any()
    }
    found: dict[str, Any] = {}
    for name, column in last.items():
        if name == "step_seconds":
            found["one_step_seconds"] = float(column.mean())
        elif name in ("step", "epoch", "lr"):
            found[name] = float(column[-1])
        elif name.endswith("memory_bytes"):
            found[name] = int(column.max())
        else:
            found[name] = float(column.mean())
    if "step" in found:
        found["step"] = int(found["step"])
    share = data_wait_share(history)
    if len(share):
        found["data_wait_share"] = float(share[-SUMMARY_STEPS:].mean())
    return found


def data_wait_share(history: History) -> NDArray[np.float64]:
    """Return for each step the share (S,) of its time that was spent waiting for data.

    A step's time is its batch over its speed. The batch is not in the log, so the time is
    known only where there is a column `step_seconds`; see `with_step_seconds`.
    """
    if "step_seconds" not in history or "data_wait_seconds" not in history:
        return np.zeros(0)
    share: NDArray[np.float64] = history["data_wait_seconds"] / history["step_seconds"]
    return share.clip(0, 1)


def with_step_seconds(history: History, batch: int | None) -> History:
    """Add the column `step_seconds`, of runs whose batch is known."""
    if not batch or "images_per_second" not in history:
        return history
    return history | {"step_seconds": batch / history["images_per_second"]}


def _row_of(line: str) -> dict[str, float] | None:
    try:
        row = parsed(line, dict[str, float])
    except DocumentError:
        return None
    return row if "step" in row else None
