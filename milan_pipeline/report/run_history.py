"""What a run has logged of its steps, as columns.

Legend: S logged steps.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.documents import MISSHAPEN

History = dict[str, NDArray[np.float64]]
"""Columns (S,) by the names of `log.jsonl`; NaN where a step does not tell."""

SUMMARY_STEPS = 100
"""The last steps that a run's latest figures are means of."""


def read_history(run: Path) -> History:
    """Read `log.jsonl`; without it there is nothing to tell: no columns.

    A line that a kill cut short, or that is no row, counts as never written, as on resume.
    """
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
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

    A step's time is its batch over its speed. The batch is not in the log, so it is told only where
    the column `step_seconds` is; see `with_step_seconds`.
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
        row = {str(name): float(value) for name, value in json.loads(line).items()}
    except MISSHAPEN:
        return None
    return row if "step" in row else None
