"""Examine a classifier while it is trained: scores by step, and the best weights.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.func import functional_call

from milan_pipeline.classification_scores import Scores, score
from milan_pipeline.classification_task import Pixels
from milan_pipeline.classification_views import EvaluationViews, ViewConfig
from milan_pipeline.classifier_files import Description, write_classifier
from milan_pipeline.distributed import World
from milan_pipeline.ema import MovingAverage
from milan_pipeline.evaluations import Evaluations
from milan_pipeline.labelled import LabelledTable
from milan_pipeline.order import StepClock

BEST, LAST = "best", "finetuned"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamConfig:
    """How a classifier is examined.

    Attributes:
        batch: images in a forward pass.
        threads: that decode.
        bf16: compute under bfloat16 autocast, as training does.
    """

    batch: int
    threads: int
    bf16: bool


class Examiner:
    """Score a classifier on all validation images.

    Args:
        model: on its device.
        description: what it is given.
        table: the validation images.
        config: how.
    """

    def __init__(
        self,
        model: nn.Module,
        description: Description,
        table: LabelledTable,
        config: ExamConfig,
    ) -> None:
        self._model = model
        self._table = table
        self._config = config
        shown = ViewConfig(
            image_size=description.image_size,
            mean=description.mean,
            augment="",
            crop_pct=description.crop_pct,
            seed=0,
        )
        self._views = EvaluationViews(shown)
        device = next(model.parameters()).device
        self._pixels = Pixels(description.mean, description.std, device)

    def score(self, world: World, weights: Mapping[str, Tensor] | None = None) -> Scores:
        """Score the model, or what it would be with other weights; all of `world` must come."""
        given = {} if weights is None else dict(weights)

        def classify(images_BCHW: Tensor) -> Tensor:
            logits_BY: Tensor = functional_call(self._model, given, (images_BCHW,))
            return logits_BY

        with _evaluating(self._model):
            return score(
                classify,
                self._table,
                self._views,
                self._pixels,
                batch=self._config.batch,
                threads=self._config.threads,
                bf16=self._config.bf16,
                world=world,
            )


@dataclasses.dataclass(kw_only=True)
class Exams:
    """Examine a classifier each few epochs of its training, and at the end.

    Where a moving average of the weights is kept, it is that which is examined and kept.

    Attributes:
        folder: of the run.
        model: what is trained.
        average: of its weights, if any.
        description: of the model.
        examiner: of the model.
        clock: tells the epoch of a step.
        every: epochs between examinations.
        total: steps of the run.
        world: the processes, each of which makes the same calls; the first one writes.
        seconds: that examinations took.
    """

    folder: Path
    model: nn.Module
    average: MovingAverage | None
    description: Description
    examiner: Examiner
    clock: StepClock
    every: int
    total: int
    world: World
    seconds: float = 0.0

    @property
    def evaluations(self) -> Evaluations:
        """The scores so far."""
        return Evaluations(self.folder, key="top1")

    def after_step(self, step: int) -> None:
        """Examine if it is time; see `training.Trainer.train`."""
        epoch, within = self.clock.locate(step)
        if step == self.total or (within == 0 and epoch % self.every == 0):
            self._examine(step, self.world)

    def conclude(self, step: int) -> dict[str, float]:
        """Write the weights that training ended with, and return their scores and the best.

        Called in the first process alone, which examines them if there was no turn for it: a run
        may end before the step that it was meant to, or after.
        """
        self.write(LAST)
        if all(row["step"] != step for row in self.evaluations.rows()):
            self._examine(step, World())
        rows, best = self.evaluations.rows(), self.evaluations.best()
        last = next(row for row in rows if row["step"] == step)
        top = last if best is None else best
        return {"top1": last["top1"], "top5": last["top5"], "best-top1": top["top1"]}

    def write(self, name: str) -> None:
        """Write the weights as they are now."""
        of = self.model if self.average is None else self.average
        write_classifier(self.folder, name, of.state_dict(), self.description)

    def _examine(self, step: int, world: World) -> None:
        began = time.monotonic()
        averaged = None if self.average is None else self.average.state_dict()
        scores = self.examiner.score(world, averaged)
        if world.leads:
            row = {"step": step, "epoch": self.clock.fractional_epoch(step), **scores.per_cent()}
            self.evaluations.add(row, lambda: self.write(BEST))
        self.seconds += time.monotonic() - began


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()
