"""The scores of a run, `evaluations.jsonl`: one row for each step and set of images."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from milan_pipeline import storage
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.schema import Count, DocumentError, conforming, parsed
from milan_pipeline.errors import DataError

EVALUATIONS = "evaluations.jsonl"
BEST = "best"
"""The name of the weights with the best scores."""
ShowScores = Callable[[int, Mapping[str, float]], None]
"""Shows a step and its scores by name; a process that is killed may show the same ones again."""


class Evaluations:
    """Keep a row of scores for each evaluated step, and find the best one.

    Scores on different images cannot be compared. Each row names the images that it was scored on,
    and rows of other images than today's are kept but never the best. They come first in the file,
    and each set's rows in the order of their steps.

    Args:
        folder: the run folder.
        key: the score that chooses the best row; higher is better.
        val: fingerprint of the images to score on today.
    """

    def __init__(self, folder: Path, *, key: str, val: str) -> None:
        self._path = folder / EVALUATIONS
        self._key = key
        self.val = val

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all steps, whatever images they were scored on.

        Raises:
            DataError: the file is damaged.
        """
        return _read(self._path, key=self._key)

    def of_today(self) -> list[dict[str, Any]]:
        """Return the rows that were scored on today's images."""
        return [row for row in self.rows() if row["val"] == self.val]

    def at(self, step: int) -> dict[str, Any] | None:
        """Return the row of a step on today's images; None where there is none."""
        return next((row for row in self.of_today() if row["step"] == step), None)

    def best(self) -> dict[str, Any] | None:
        """Return the best row on today's images, the first of equals."""
        return self._best_of(self.of_today())

    def add(self, step: int, scores: Mapping[str, Any], keep_best: Callable[[], None]) -> None:
        """Add a step's row, in the place of an earlier one.

        Args:
            step: that was scored.
            scores: of today's images.
            keep_best: called before the row is written if it is the best so far.
        """
        row = {"step": step, **scores, "val": self.val}
        today = [*(each for each in self.of_today() if each["step"] != step), row]
        today.sort(key=lambda each: each["step"])
        if self._best_of(today) is row:
            keep_best()
        _write(self._path, [*self._of_others(), *today])

    def last_scored(self) -> str | None:
        """Return the fingerprint of the images that were scored last; None before any were."""
        return next((row["val"] for row in reversed(self.rows())), None)

    def come_last(self) -> None:
        """Have today's images be those that were scored last, if there are scores on them."""
        _write(self._path, [*self._of_others(), *self.of_today()])

    def forget_after(self, step: int) -> None:
        """Drop the rows of later steps on today's images, which are scored again.

        Those of other images stay, as do the best weights that they chose.
        """
        today = self.of_today()
        kept = [row for row in today if row["step"] <= step]
        if len(kept) < len(today):
            _write(self._path, [*self._of_others(), *kept])

    def _of_others(self) -> list[dict[str, Any]]:
        return [row for row in self.rows() if row["val"] != self.val]

    def _best_of(self, rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        return max(rows, key=lambda row: row[self._key], default=None)


class Validator(Protocol):
    """What scores the model on the way; every process makes the same calls."""

    def resume(self, step: int) -> None:
        """Forget the scores of later steps, since these are trained and scored again."""

    def is_due(self, step: int) -> bool:
        """Tell whether the model is to be scored after a step; it may have been already."""

    def validate(self, step: int, stop: StopRequest, show: ShowScores) -> None:
        """Score the model, `show` the step and its scores by name, and keep them then.

        Raises:
            InterruptedRunError: a stop signal came to any process.
        """


def _read(path: Path, *, key: str | None = None) -> list[dict[str, Any]]:
    """Read rows, each with a step, the images' fingerprint and, where one is named, a score."""
    try:
        there = storage.exists(str(path))
        lines = storage.read_bytes(str(path)).splitlines() if there else []
        rows = [parsed(line, dict[str, Any]) for line in lines]
        for row in rows:
            conforming([row.get("step"), row.get("val")], tuple[Count, str])
            conforming(0.0 if key is None else row.get(key), float)
    except DocumentError as error:
        raise DataError(
            f"{path} is damaged ({error}); restore it, or move it and the run's best.* away to "
            "go on without the scores that it had"
        ) from error
    return rows


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    storage.put_bytes(str(path), "".join(f"{json.dumps(row)}\n" for row in rows).encode())
