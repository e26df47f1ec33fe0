"""Reads what a run has logged: its steps and its evaluations, as columns, and their curves.

Legend: S logged steps, B buckets of them.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, conforming, parsed
from milan_pipeline.training.evaluations import EVALUATIONS
from milan_pipeline.training.run_log import LOG_NAME

BUCKETS = 300
History = dict[str, NDArray[np.float64]]
"""Columns (S,) by the names of `log.jsonl`; NaN where a step does not tell."""


def read_history(run: Path) -> History:
    """Read `log.jsonl`; without it there is nothing to tell: no columns.

    A line that a kill cut short, or that is no row, counts as never written, as on resume.
    """
    return _columns(_documents(run / LOG_NAME))


def read_evaluations(run: Path) -> History:
    """Read `evaluations.jsonl` likewise: columns of the scores in per cent.

    Scores on different images make no curve, so those on the images that were scored last are read.
    """
    rows = list(_documents(run / EVALUATIONS))
    rows = [row for row in rows if row.get("val") == rows[-1].get("val")]
    return _columns(
        {name: value for name, value in row.items() if isinstance(value, int | float)}
        for row in rows
    )


def bucketed(
    x_S: NDArray[np.float64], y_S: NDArray[np.float64], buckets: int = BUCKETS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means (B,) of equally many neighbouring steps; what is not finite is left out."""
    finite_S = np.isfinite(x_S) & np.isfinite(y_S)
    x_S, y_S = x_S[finite_S], y_S[finite_S]
    parts = np.array_split(np.arange(len(x_S)), max(1, min(buckets, len(x_S))))
    parts = [part for part in parts if len(part)]
    x_B, y_B = (np.array([all_S[part].mean() for part in parts]) for all_S in (x_S, y_S))
    return x_B, y_B


def curve(
    history: History, column_S: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return where a column's curve goes: epochs (or steps) and values, (B,); None without any."""
    if not len(column_S) or not np.isfinite(column_S).any():
        return None
    return bucketed(history.get("epoch", history["step"]), column_S)


def latest(history: History) -> dict[str, Any]:
    """Return the value at which each column's curve ends; of step, epoch and rate, the last."""
    found: dict[str, Any] = {}
    for name, column_S in history.items():
        points = curve(history, column_S)
        if points is None or not len(points[1]):
            continue
        last = float(points[1][-1])
        if name in ("step", "epoch", "lr"):
            last = float(column_S[np.isfinite(column_S)][-1])
        whole = name == "step" or name.endswith("memory_bytes")
        found["one_step_seconds" if name == "step_seconds" else name] = int(last) if whole else last
    share = curve(history, data_wait_share(history))
    if share is not None:
        found["data_wait_share"] = float(share[1][-1])
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


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log that are JSON objects."""
    there = storage.exists(str(path))
    lines = storage.read_bytes(str(path)).decode(errors="replace").splitlines() if there else []
    for line in lines:
        with contextlib.suppress(DocumentError):
            yield parsed(line, dict[str, Any])


def _columns(documents: Iterable[Mapping[str, Any]]) -> History:
    """Return the columns of those that are rows of numbers."""
    rows: list[dict[str, float]] = []
    for document in documents:
        with contextlib.suppress(DocumentError):
            rows.append(conforming(document, dict[str, float]))
    rows = [row for row in rows if "step" in row]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
