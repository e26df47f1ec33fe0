"""Score a classifier: top-1 and top-5 accuracy; each process scores its share of the images.

Legend: B batch, C channels, H height, N images, W width, Y classes; n of N that can be decoded.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from milan_pipeline.cluster.world import World
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import NONE_READABLE, RunLedger
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.evaluate.accuracies import per_cent
from milan_pipeline.evaluate.classification.model import ClassifierDescription
from milan_pipeline.evaluate.classification.views import EvaluationViews, ViewConfig
from milan_pipeline.evaluate.images_to_score import ImagesToScore
from milan_pipeline.evaluate.intervals import wilson_of
from milan_pipeline.evaluate.per_image import ANSWERS, NAMES, answers_table, names_txt, npy
from milan_pipeline.images.crops import Pixels
from milan_pipeline.training.partial_scores import PartialScores
from milan_pipeline.training.validation import evaluating

FIVE = 5


class Example(NamedTuple):
    """An image to score (C, H, W), its class, and its place among all images, from 0."""

    image_CHW: Tensor
    label: int
    number: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationScores:
    """The number of images that a classifier got right.

    Attributes:
        top1: images whose class it named.
        top5: images whose class was among its five likeliest; None of a classifier of no more than
            five classes, among which every class is.
        images: all that can be decoded.
        rows_n: a row for each of these; see `per_image.answers_table`.
        names_n: of these.
    """

    top1: int
    top5: int | None
    images: int
    rows_n: NDArray[np.void] = dataclasses.field(compare=False, repr=False)
    names_n: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def per_cent(self) -> dict[str, float]:
        """Return the accuracies in per cent, as tables show them."""
        counts = self.counts()
        images = counts.pop("images")
        return {name: per_cent(count, images) for name, count in counts.items()}

    def counts(self) -> dict[str, int]:
        """Return the counts that a record keeps."""
        counts = {"top1": self.top1, "top5": self.top5, "images": self.images}
        return {name: count for name, count in counts.items() if count is not None}

    def notes(self) -> dict[str, Any]:
        """Return the intervals of the accuracies."""
        return {"intervals": wilson_of(self.per_cent(), self.images)}

    def files(self) -> dict[str, bytes]:
        """Return the answers and the images' names as files; see `per_image`."""
        return {ANSWERS: npy(self.rows_n), NAMES: names_txt(self.names_n)}


@torch.no_grad()
def score(
    classify: Callable[[Tensor], Tensor],
    images: ImagesToScore,
    views: EvaluationViews,
    pixels: Pixels,
    *,
    bf16: bool = False,
) -> ClassificationScores:
    """Score a classifier on all images, together with the other processes.

    Args:
        classify: gives logits (B, Y) of images (B, C, H, W), in evaluation mode.
        images: with class numbers.
        views: makes the classifier's view of a sample.
        pixels: normalises them, on the classifier's device.
        bf16: compute under bfloat16 autocast.

    Returns:
        The counts of all processes.

    Raises:
        DataError: more images than the ledger allows cannot be decoded, or none can be.
        InterruptedRunError: a stop signal came to any process.
    """
    # Of each image 1 + its class, 1 + the answer, and whether the class is among five answers.
    found_N3 = torch.zeros(images.table.samples, 3, dtype=torch.float64)

    def example(sample: dict[str, Any]) -> Example:
        return Example(views(sample), sample["label"], sample["number"])

    with contextlib.closing(images.batches(example, _in_order, found_N3)) as batches:
        for some in batches:
            labels_B = torch.tensor([each.label for each in some])
            answers_B5 = answers_of(some, classify, pixels, bf16=bf16)
            five_B = (answers_B5 == labels_B[:, None]).any(dim=1)
            rows_B3 = torch.stack([1 + labels_B, 1 + answers_B5[:, 0], five_B], dim=1)
            found_N3[[each.number for each in some]] = rows_B3.double()
    # Each image is scored by one process, and its row is 0 in the others.
    total_N3 = images.world.total(found_N3).round().to(torch.int64).numpy()
    scored_N = total_N3[:, 0] > 0
    label_n, answer_n, five_n = total_N3[scored_N].T
    if not len(label_n):
        raise DataError(NONE_READABLE)
    return ClassificationScores(
        top1=int((label_n == answer_n).sum()),
        top5=int(five_n.sum()),
        images=len(label_n),
        rows_n=answers_table(label_n - 1, {"top1": answer_n - 1}),
        names_n=tuple(itertools.compress(images.table.names(), scored_N)),
    )


def answers_of(
    some: list[Example],
    classify: Callable[[Tensor], Tensor],
    pixels: Pixels,
    *,
    bf16: bool,
) -> Tensor:
    """Return the five likeliest classes of a batch, or all if there are fewer; int64 on the CPU.

    Arguments are those of `score`.
    """
    inputs_BCHW = pixels.batch([each.image_CHW for each in some])
    with torch.autocast(inputs_BCHW.device.type, torch.bfloat16, enabled=bf16):
        logits_BY = classify(inputs_BCHW)
    return logits_BY.topk(min(FIVE, logits_BY.shape[1])).indices.cpu()


def _in_order(examples: Iterator[Example], size: int) -> Iterator[list[Example]]:
    """Yield examples together; the last batch has what is left, also where a stop signal came."""
    some: list[Example] = []
    try:
        for example in examples:
            some.append(example)
            if len(some) == size:
                yield some
                some = []
    except InterruptedRunError:
        if some:
            yield some
        raise
    if some:
        yield some


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a classifier is scored.

    Attributes:
        batch: images in a forward pass.
        threads: number of threads that decode.
        bf16: compute under bfloat16 autocast, as training does.
    """

    batch: int
    threads: int
    bf16: bool


class ClassificationEvaluator:
    """Score a classifier on all validation images that can be decoded; a `validation.Evaluator`.

    Args:
        model: on its device.
        description: of the model.
        table: the validation images.
        ledger: the validation images that cannot be decoded.
        config: how they are scored.
    """

    key = "top1"
    columns: Mapping[str, str] = {
        "top1": "top-1 %",
        "top5": "top-5 %",
        "best-top1": "best top-1 %",
    }

    def __init__(
        self,
        model: nn.Module,
        description: ClassifierDescription,
        table: LabelledTable,
        ledger: RunLedger,
        config: EvaluationConfig,
    ) -> None:
        self._model = model
        self._has_five = int(description.arguments["num_classes"]) > FIVE
        self.ledger = ledger
        self._bf16 = config.bf16
        self._images = ImagesToScore(
            table=table, ledger=ledger, batch=config.batch, threads=config.threads
        )
        view = ViewConfig(
            image_size=description.image_size,
            mean=description.mean,
            augment="",
            crop_pct=description.crop_pct,
            seed=0,
        )
        self._views = EvaluationViews(view)
        device = next(model.parameters()).device
        self._pixels = Pixels(description.mean, description.std, device)

    def score(
        self,
        world: World,
        stop: StopRequest,
        weights: Mapping[str, Tensor] | None = None,
        *,
        partial: PartialScores | None = None,
    ) -> ClassificationScores:
        """Score the model; see `validation.Evaluator`."""
        given = {} if weights is None else dict(weights)

        def classify(images_BCHW: Tensor) -> Tensor:
            logits_BY: Tensor = functional_call(self._model, given, (images_BCHW,))
            return logits_BY

        with evaluating(self._model):
            images = dataclasses.replace(self._images, world=world, stop=stop, partial=partial)
            scores = score(classify, images, self._views, self._pixels, bf16=self._bf16)
        return scores if self._has_five else dataclasses.replace(scores, top5=None)

    def pictures(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Return no pictures."""
        del weights
        return {}
