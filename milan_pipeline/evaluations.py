"""The evaluations of a run, each step once, resumed or not: `evaluations.jsonl`, and the best."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from milan_pipeline import storage
from milan_pipeline.documents import MISSHAPEN, Count, conforming, parsed
from milan_pipeline.errors import DataError


class Evaluations:
    """Keep a row for each evaluated step, and what was best.

    A run that goes on from a checkpoint evaluates the steps after it again, with the same result:
    what is there of them is dropped, so that it does not matter when the run was killed.

    Args:
        folder: of the run.
        key: the score in a row that is the better the higher it is.
    """

    def __init__(self, folder: Path, *, key: str) -> None:
        self._path = folder / "evaluations.jsonl"
        self._key = key

    def rows(self, *, before: float = float("inf")) -> list[dict[str, Any]]:
        """Return the rows of all steps before one.

        Raises:
            DataError: the file is damaged.
        """
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
            rows = [parsed(line, dict[str, Any]) for line in lines]
            for row in rows:
                conforming([row["step"], row[self._key]], tuple[Count, float])
        except MISSHAPEN as error:
            raise DataError(
                f"{self._path} is damaged ({error}); restore it, or give another output folder"
            ) from error
        return [row for row in rows if row["step"] < before]

    def best(self, *, before: float = float("inf")) -> dict[str, Any] | None:
        """Return the best row of all steps before one, the first of equals; None of none."""
        return max(self.rows(before=before), key=lambda row: row[self._key], default=None)

    def add(self, row: dict[str, Any], keep_best: Callable[[], None]) -> None:
        """Add a step's row.

        Args:
            row: has `step`, and the score.
            keep_best: called before the row is written if it is the best so far.
        """
        before = self.rows(before=row["step"])
        if all(row[self._key] > other[self._key] for other in before):
            keep_best()
        text = "".join(f"{json.dumps(kept)}\n" for kept in [*before, row])
        storage.put_bytes(str(self._path), text.encode())
