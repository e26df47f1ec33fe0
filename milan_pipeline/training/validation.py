"""Examine a model while it is trained: scores by step, and the best weights; of any task.

The evaluations of a run, each step once, resumed or not: `evaluations.jsonl`, and the best.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from milan_pipeline import storage
from milan_pipeline.cluster.world import World, share_buffers
from milan_pipeline.core.schema import Count, DocumentError, conforming, parsed
from milan_pipeline.data.order import StepClock
from milan_pipeline.errors import DataError
from milan_pipeline.training.optim import MovingAverage

BEST = "best"


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
            row: has `step`, and the score.
            keep_best: called before the row is written if it is the best so far.
        """
        before = self.rows(before=row["step"])
        if all(row[self._key] > other[self._key] for other in before):
            keep_best()
        text = "".join(f"{json.dumps(kept)}\n" for kept in [*before, row])
        storage.put_bytes(str(self._path), text.encode())


@dataclasses.dataclass(kw_only=True)
class Exams:
    """Examine a model now and then in its training, and at the end.

    Where a moving average of the weights is kept, it is that which is examined and kept.

    Attributes:
        folder: of the run.
        model: what is trained.
        average: of its weights, if any.
        score: scores of the model, or of what it would be with other weights, together with the
            other processes; in per cent, by name.
        write: writes weights under a name into the folder.
        key: the score that is the better the higher it is.
        last: the name of the weights that training ends with.
        is_due: whether to examine after a step.
        clock: tells the epoch of a step.
        total: steps of the run, after which it is examined in any case.
        world: the processes, each of which makes the same calls; the first one writes.
        seconds: that examinations took.
    """

    folder: Path
    model: nn.Module
    average: MovingAverage | None
    score: Callable[[World, Mapping[str, Tensor] | None], Mapping[str, float]]
    write: Callable[[str, Mapping[str, Tensor]], None]
    key: str
    last: str
    is_due: Callable[[int], bool]
    clock: StepClock
    total: int
    world: World
    seconds: float = 0.0

    @property
    def evaluations(self) -> Evaluations:
        """The scores so far."""
        return Evaluations(self.folder, key=self.key)

    def after_step(self, step: int) -> None:
        """Examine if it is time; see `training.Trainer.train`."""
        if step == self.total or self.is_due(step):
            self._examine(step, self.world)

    def conclude(self, step: int) -> dict[str, float]:
        """Write the weights that training ended with, and return their scores and the best.

        Called in the first process alone, which examines them if there was no turn for it: a run
        may end before the step that it was meant to, or after.

        Returns:
            The scores, and the best one of all steps as `best-KEY`.
        """
        self._write(self.last)
        if all(row["step"] != step for row in self.evaluations.rows()):
            self._examine(step, World())
        rows, best = self.evaluations.rows(), self.evaluations.best()
        last = next(row for row in rows if row["step"] == step)
        scores = {name: value for name, value in last.items() if name not in ("step", "epoch")}
        return scores | {f"best-{self.key}": (best or last)[self.key]}

    def _write(self, name: str) -> None:
        of = self.model if self.average is None else self.average
        self.write(name, of.state_dict())

    def _examine(self, step: int, world: World) -> None:
        began = time.monotonic()
        share_buffers(self.model, world)
        averaged = None if self.average is None else self.average.state_dict()
        scores = self.score(world, averaged)
        if world.leads:
            row = {"step": step, "epoch": self.clock.fractional_epoch(step), **scores}
            self.evaluations.add(row, lambda: self._write(BEST))
        self.seconds += time.monotonic() - began


def without_exams(counts: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return a trainer's counts whose images a second are those of training alone."""
    images, rate = counts["images_done_now"], counts["images_per_second"]
    alone = images / max(images / rate - seconds, 1e-9) if rate else 0.0
    return dict(counts) | {
        "images_per_second": round(alone, 1),
        "evaluation_seconds": round(seconds, 3),
    }


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block, and back into training after it."""
    model.eval()
    try:
        yield
    finally:
        model.train()
