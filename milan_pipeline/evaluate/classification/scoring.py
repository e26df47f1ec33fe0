"""Score a classifier: top-1 and top-5 accuracy; each process scores its share of the images.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
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
from milan_pipeline.images.crops import Pixels
from milan_pipeline.training.partial_scores import PartialScores
from milan_pipeline.training.validation import evaluating

FIVE = 5


class ClassificationScores(NamedTuple):
    """The number of images that a classifier got right.

    Attributes:
        top1: images whose class it named.
        top5: images whose class was among its five likeliest; None of a classifier of no more than
            five classes, among which every class is.
        images: all that can be decoded.
    """

    top1: int
    top5: int | None
    images: int

    def per_cent(self) -> dict[str, float]:
        """Return the accuracies in per cent, as tables show them."""
        counts = self.counts()
        images = counts.pop("images")
        return {name: per_cent(count, images) for name, count in counts.items()}

    def counts(self) -> dict[str, int]:
        """Return the counts that a record keeps."""
        return {name: count for name, count in self._asdict().items() if count is not None}

    def notes(self) -> dict[str, Any]:
        """Return what the scores cannot be read without: nothing."""
        return {}


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
    counts = torch.zeros(3, dtype=torch.float64)

    def example(sample: dict[str, Any]) -> tuple[Tensor, int]:
        return views(sample), sample["label"]

    with contextlib.closing(images.batches(example, _in_order, counts)) as batches:
        for some in batches:
            counts += counts_of(some, classify, pixels, bf16=bf16)
    total = images.world.total(counts)
    scores = ClassificationScores(*(round(value) for value in total.tolist()))
    if not scores.images:
        raise DataError(NONE_READABLE)
    return scores


def counts_of(
    some: list[tuple[Tensor, int]],
    classify: Callable[[Tensor], Tensor],
    pixels: Pixels,
    *,
    bf16: bool,
) -> Tensor:
    """Return the counts of `ClassificationScores` of a batch, (3,) int64 on the CPU.

    Arguments are those of `score`; an example is an image and its class.
    """
    labels_B = torch.tensor([label for _, label in some])
    inputs_BCHW = pixels.batch([image_CHW for image_CHW, _ in some])
    with torch.autocast(inputs_BCHW.device.type, torch.bfloat16, enabled=bf16):
        logits_BY = classify(inputs_BCHW)
    answers_B5 = logits_BY.topk(min(FIVE, logits_BY.shape[1])).indices.cpu()
    right_B5 = answers_B5 == labels_B[:, None]
    return torch.stack([right_B5[:, 0].sum(), right_B5.sum(), torch.tensor(len(some))])


def _in_order(
    examples: Iterator[tuple[Tensor, int]], size: int
) -> Iterator[list[tuple[Tensor, int]]]:
    """Yield examples together; the last batch has what is left, also where a stop signal came."""
    some: list[tuple[Tensor, int]] = []
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
        return scores if self._has_five else scores._replace(top5=None)

    def pictures(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Return no pictures."""
        del weights
        return {}
