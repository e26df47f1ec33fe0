"""The scores of a run, `evaluations.jsonl`: one row a step, also where a run was resumed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from milan_pipeline import storage
from milan_pipeline.core.schema import Count, DocumentError, conforming, parsed
from milan_pipeline.errors import DataError

EVALUATIONS = "evaluations.jsonl"
BEST = "best"
"""The name of the weights with the best scores."""


class Evaluations:
    """Keep a row of scores for each evaluated step, and find the best one.

    A run that is resumed scores the steps after its checkpoint again, with the same result. Their
    earlier rows are dropped, so that it does not matter when the run was killed.

    Scores on different images cannot be compared. Each row names the images that it was scored on,
    and rows of other images than today's are kept but never the best.

    Args:
        folder: the run folder.
        key: the score that chooses the best row; higher is better.
        val: fingerprint of the images to score on today.
    """

    def __init__(self, folder: Path, *, key: str, val: str) -> None:
        self._path = folder / EVALUATIONS
        self._key = key
        self._val = val

    def rows(self, *, before: float = float("inf")) -> list[dict[str, Any]]:
        """Return the rows of all steps before one, whatever images they were scored on.

        Raises:
            DataError: the file is damaged.
        """
        try:
            there = storage.exists(str(self._path))
            lines = storage.read_bytes(str(self._path)).splitlines() if there else []
            rows = [parsed(line, dict[str, Any]) for line in lines]
            for row in rows:
                conforming(
                    [row.get("step"), row.get("val"), row.get(self._key)], tuple[Count, str, float]
                )
        except DocumentError as error:
            raise DataError(
                f"{self._path} is damaged ({error}); restore it, or give another output folder"
            ) from error
        return [row for row in rows if row["step"] < before]

    def of_today(self, *, before: float = float("inf")) -> list[dict[str, Any]]:
        """Return the rows before a step that were scored on today's images."""
        return [row for row in self.rows(before=before) if row["val"] == self._val]

    def at(self, step: int) -> dict[str, Any] | None:
        """Return the row of a step on today's images; None where there is none."""
        return next((row for row in self.of_today() if row["step"] == step), None)

    def best(self, *, before: float = float("inf")) -> dict[str, Any] | None:
        """Return the best row before a step on today's images, the first of equals."""
        return max(self.of_today(before=before), key=lambda row: row[self._key], default=None)

    def add(self, step: int, scores: Mapping[str, Any], keep_best: Callable[[], None]) -> None:
        """Add a step's row.

        Args:
            step: that was scored.
            scores: of today's images.
            keep_best: called before the row is written if it is the best so far.
        """
        row = {"step": step, **scores, "val": self._val}
        best = self.best(before=step)
        if best is None or row[self._key] > best[self._key]:
            keep_best()
        text = "".join(f"{json.dumps(kept)}\n" for kept in [*self.rows(before=step), row])
        storage.put_bytes(str(self._path), text.encode())
