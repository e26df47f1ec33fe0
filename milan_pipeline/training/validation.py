"""Score a model while it is trained, whatever the task, and keep its best weights.

The scores are kept in `evaluations.jsonl`, one row a step, also where a run was resumed.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from milan_pipeline import storage
from milan_pipeline.cluster.world import World, share_buffers
from milan_pipeline.core.schema import Count, DocumentError, conforming, parsed
from milan_pipeline.data.order import StepClock
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.errors import DataError
from milan_pipeline.training.optim import MovingAverage

BEST = "best"


class Evaluations:
    """Keep a row of scores for each evaluated step, and find the best one.

    A run that is resumed scores the steps after its checkpoint again, with the same result. Their
    earlier rows are dropped, so that it does not matter when the run was killed.

    Args:
        folder: the run folder.
        key: the score that chooses the best row; higher is better.
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
                conforming([row.get("step"), row.get(self._key)], tuple[Count, float])
        except DocumentError as error:
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
            row: `step` and the scores.
            keep_best: called before the row is written if it is the best so far.
        """
        before = self.rows(before=row["step"])
        if all(row[self._key] > other[self._key] for other in before):
            keep_best()
        text = "".join(f"{json.dumps(kept)}\n" for kept in [*before, row])
        storage.put_bytes(str(self._path), text.encode())


class Scores(Protocol):
    """How good a model is."""

    def per_cent(self) -> dict[str, float]:
        """Return the scores in per cent, by name."""

    def counts(self) -> dict[str, Any]:
        """Return the counts that a record keeps."""


class Evaluator(Protocol):
    """What scores a model on validation images.

    Attributes:
        key: the score that chooses the best weights; higher is better.
        columns: the heading of each score in a table, by the score's name.
        ledger: the validation images that cannot be decoded.
    """

    key: str
    columns: Mapping[str, str]
    ledger: RunLedger

    def score(self, world: World, weights: Mapping[str, Tensor] | None = None) -> Scores:
        """Score the model, with these weights if any are given; every process must call this."""

    def pictures(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Return pictures of what the model answers, by file name."""


@dataclasses.dataclass(kw_only=True)
class Validation:
    """Score a model at some steps of its training, and at the end.

    Where a moving average of the weights is kept, the average is scored and written.

    Attributes:
        folder: the run folder.
        model: the model that is trained.
        average: the moving average of its weights, if any.
        evaluator: scores the model.
        write: writes weights under a name into the folder.
        last: the name of the weights that training ends with.
        is_due: whether to score the model after a step.
        clock: tells the epoch of a step.
        total: steps of the run; the model is always scored after the last one.
        world: the processes, each of which makes the same calls; the first one writes.
        seconds: the time that scoring took so far.
    """

    folder: Path
    model: nn.Module
    average: MovingAverage | None
    evaluator: Evaluator
    write: Callable[[str, Mapping[str, Tensor]], None]
    last: str
    is_due: Callable[[int], bool]
    clock: StepClock
    total: int
    world: World
    seconds: float = 0.0

    @property
    def evaluations(self) -> Evaluations:
        """The scores so far."""
        return Evaluations(self.folder, key=self.evaluator.key)

    def after_step(self, step: int) -> None:
        """Score the model where it is due; see `trainer.Trainer.train`."""
        if step == self.total or self.is_due(step):
            self._validate(step, self.world)

    def averaged(self) -> Mapping[str, Tensor] | None:
        """Return the averaged weights; None where no average is kept."""
        return None if self.average is None else self.average.state_dict()

    def conclude(self, step: int) -> dict[str, float]:
        """Write the weights that training ended with, and return their scores and the best.

        Called in the first process alone, which scores them if that was not done yet: a run may
        end before the planned step, or after it.

        Returns:
            The scores, and the best one of all steps as `best-KEY`.
        """
        self._write(self.last)
        if all(row["step"] != step for row in self.evaluations.rows()):
            self._validate(step, World())
        rows, best, key = self.evaluations.rows(), self.evaluations.best(), self.evaluator.key
        last = next(row for row in rows if row["step"] == step)
        scores = {name: value for name, value in last.items() if name not in ("step", "epoch")}
        return scores | {f"best-{key}": (best or last)[key]}

    def _write(self, name: str) -> None:
        self.write(name, self.averaged() or self.model.state_dict())

    def _validate(self, step: int, world: World) -> None:
        began = time.monotonic()
        share_buffers(self.model, world)
        scores = self.evaluator.score(world, self.averaged()).per_cent()
        if world.leads:
            row = {"step": step, "epoch": self.clock.fractional_epoch(step), **scores}
            self.evaluations.add(row, lambda: self._write(BEST))
        self.seconds += time.monotonic() - began


def without_validation(counts: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return a trainer's counts whose images a second are those of training alone."""
    images, rate = counts["images_done_now"], counts["images_per_second"]
    alone = images / max(images / rate - seconds, 1e-9) if rate else 0.0
    return dict(counts) | {
        "images_per_second": round(alone, 1),
        "evaluation_seconds": round(seconds, 3),
    }


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block, and back into training mode after it."""
    model.eval()
    try:
        yield
    finally:
        model.train()
