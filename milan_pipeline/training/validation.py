"""Score a model while it is trained, whatever the task, and keep its best weights."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from milan_pipeline import storage
from milan_pipeline.cluster.world import World, share_buffers
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import StepClock
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.training.best_weights import take_up_best
from milan_pipeline.training.ended import lost_files, warn_of_lost_best
from milan_pipeline.training.evaluations import BEST, Evaluations, ShowScores
from milan_pipeline.training.optim import MovingAverage
from milan_pipeline.training.partial_scores import PartialScores

UNAVERAGED = "unaveraged"
ASK_EVERY = 16
"""Images of a process between two questions whether any process was asked to stop."""

ItemT = TypeVar("ItemT")


class Scores(Protocol):
    """How good a model is."""

    def per_cent(self) -> dict[str, float]:
        """Return the scores in per cent, by name."""

    def counts(self) -> dict[str, Any]:
        """Return the counts that a record keeps."""

    def notes(self) -> dict[str, Any]:
        """Return what the scores cannot be read without, by name, such as their `intervals`."""

    def files(self) -> dict[str, bytes]:
        """Return what is kept of each image, by file name."""


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

    def score(
        self,
        world: World,
        stop: StopRequest,
        weights: Mapping[str, Tensor] | None = None,
        *,
        partial: PartialScores | None = None,
    ) -> Scores:
        """Score the model, with these weights if any are given; every process must call this.

        What is done when a stop signal comes is kept in `partial`, and what that has is not done
        again.

        Raises:
            InterruptedRunError: a stop signal came to any process.
        """

    def pictures(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Return pictures of what the model answers, by file name."""


@dataclasses.dataclass(kw_only=True)
class Validation:
    """Score a model at some steps of its training, and at the end.

    Where a moving average of the weights is kept, the average is scored and written, and what
    training ended with is written beside it.

    Attributes:
        folder: the run folder.
        model: the model that is trained.
        average: the moving average of its weights, if any.
        evaluator: scores the model.
        val: fingerprint of the images that it scores on.
        write: writes weights under a name into the folder, and of how many steps they are and on
            which images they were scored.
        last: the name of the weights that training ends with.
        scheduled: whether to score the model after a step.
        clock: tells the epoch of a step.
        total: steps of the run; the model is always scored after the last one.
        world: the processes, each of which makes the same calls; the first one writes.
        seconds: the time that scoring took so far.
    """

    folder: Path
    model: nn.Module
    average: MovingAverage | None
    evaluator: Evaluator
    val: str
    write: Callable[[str, Mapping[str, Tensor], Mapping[str, Any]], None]
    last: str
    scheduled: Callable[[int], bool]
    clock: StepClock
    total: int
    world: World
    seconds: float = 0.0

    @property
    def evaluations(self) -> Evaluations:
        """The scores so far."""
        return Evaluations(self.folder, key=self.evaluator.key, val=self.val)

    def is_due(self, step: int) -> bool:
        """Tell whether the model is to be scored after a step; see `evaluations.Validator`."""
        if step == 0 or not (step >= self.total or self.scheduled(step)):
            return False
        return bool(self.world.most(self.world.leads and not self._is_scored(step)))

    def _is_scored(self, step: int) -> bool:
        """Tell whether a step has scores and, after the last one, the files that belong to them."""
        evaluations = self.evaluations
        theirs = step < self.total or evaluations.last_scored() == self.val
        return theirs and evaluations.at(step) is not None

    def resume(self, step: int) -> None:
        """Forget what is trained and scored again; see `evaluations.Validator`."""
        if self.world.leads:
            self.evaluations.forget_after(step)

    def validate(self, step: int, stop: StopRequest, show: ShowScores) -> None:
        """Score the model after a step; see `evaluations.Validator`."""
        began = time.monotonic()
        share_buffers(self.model, self.world)
        partial = PartialScores(folder=self.folder, step=step, val=self.val, world=self.world)
        scores = self.evaluator.score(self.world, stop, self.averaged(), partial=partial)
        if self.world.leads:
            found = scores.per_cent()
            for name, data in scores.files().items():
                storage.put_bytes(str(self.folder / name), data)
            show(step, found)
            row = {"epoch": self.clock.fractional_epoch(step), **found, **scores.notes()}
            take_up_best(self.folder, self.evaluations)
            self.evaluations.add(step, row, lambda: self._write(BEST, step))
            partial.remove()
        self.seconds += time.monotonic() - began

    def averaged(self) -> Mapping[str, Tensor] | None:
        """Return the averaged weights; None where no average is kept."""
        return None if self.average is None else self.average.state_dict()

    def conclude(self, step: int) -> tuple[dict[str, float], dict[str, Any]]:
        """Write the weights that training ended with, which were scored; return their scores.

        Called in the first process alone.

        Returns:
            The scores, and the best one of all steps as `best-KEY`; and the scores' notes.
        """
        self._write(self.last, step)
        take_up_best(self.folder, self.evaluations)
        self._restore_best(step)
        if self.average is not None:
            self.write(f"{self.last}-{UNAVERAGED}", self.model.state_dict(), {"step": step})
        evaluations, key = self.evaluations, self.evaluator.key
        last = evaluations.at(step) or {}
        scores = {name: last[name] for name in self.evaluator.columns if name in last}
        notes = {k: v for k, v in last.items() if k not in ("step", "epoch", "val", *scores)}
        return scores | {f"best-{key}": (evaluations.best() or last)[key]}, notes

    def _restore_best(self, step: int) -> None:
        """Write the best weights again where a file of them is lost, if they are this step's."""
        best = self.evaluations.best()
        if best is not None and best["step"] == step and lost_files(self.folder, [BEST]):
            self._write(BEST, step)
        warn_of_lost_best(self.folder, self.evaluations, self.last, step)

    def _write(self, name: str, step: int) -> None:
        about = {"step": step, "val": self.val}
        self.write(name, self.averaged() or self.model.state_dict(), about)


def until_stopped(
    items: Iterator[ItemT], stop: StopRequest, world: World, *, count: int
) -> Iterator[ItemT]:
    """Yield this process's items; ask between them whether to stop.

    Args:
        items: other processes may have some more or less.
        stop: asked before each item; of several processes, each now and then, all of them together.
        world: the processes.
        count: number of items of this process.

    Raises:
        InterruptedRunError: a stop signal came to any process.
    """
    every = 1 if world.size == 1 else ASK_EVERY
    for at in range(int(world.most(count))):
        if at % every == 0:
            stop.agreed(world.most).raise_if_asked("the evaluation was left")
        yield from itertools.islice(items, 1)


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
