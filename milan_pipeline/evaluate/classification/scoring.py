"""Score a classifier: top-1 and top-5 accuracy; each process scores its share of the images.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import progress_bar
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import NONE_READABLE, RunLedger
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.evaluate.accuracies import per_cent
from milan_pipeline.evaluate.classification.model import ClassifierDescription
from milan_pipeline.evaluate.classification.views import EvaluationViews, ViewConfig
from milan_pipeline.images.crops import Pixels
from milan_pipeline.training.partial_scores import PartialScores
from milan_pipeline.training.validation import evaluating, until_stopped


class ClassificationScores(NamedTuple):
    """The number of images that a classifier got right.

    Attributes:
        top1: images whose class it named.
        top5: images whose class was among its five likeliest, or among all where there are fewer.
        images: all that can be decoded.
    """

    top1: int
    top5: int
    images: int

    def per_cent(self) -> dict[str, float]:
        """Return both accuracies in per cent, as tables show them."""
        right = {"top1": self.top1, "top5": self.top5}
        return {name: per_cent(count, self.images) for name, count in right.items()}

    def counts(self) -> dict[str, int]:
        """Return the counts that a record keeps."""
        return self._asdict()

    def notes(self) -> dict[str, Any]:
        """Return what the scores cannot be read without: nothing."""
        return {}


@torch.no_grad()
def score(
    classify: Callable[[Tensor], Tensor],
    table: LabelledTable,
    views: EvaluationViews,
    pixels: Pixels,
    *,
    batch: int,
    threads: int,
    ledger: RunLedger,
    world: World | None = None,
    stop: StopRequest | None = None,
    partial: PartialScores | None = None,
    bf16: bool = False,
) -> ClassificationScores:
    """Score a classifier on all images of a table, together with the other processes.

    Images that cannot be decoded are left out and listed in the ledger.

    Args:
        classify: gives logits (B, Y) of images (B, C, H, W), in evaluation mode.
        table: of labelled images.
        views: makes the classifier's view of a sample.
        pixels: normalises them, on the classifier's device.
        batch: images in a forward pass.
        threads: number of threads that decode.
        ledger: the images that cannot be decoded.
        world: the processes, each of which must call this.
        stop: asked between images.
        partial: where what is done is kept when a stop signal comes, and taken up; None nowhere.
        bf16: compute under bfloat16 autocast.

    Returns:
        The counts of all processes.

    Raises:
        DataError: more images than the ledger allows cannot be decoded, or none can be.
        InterruptedRunError: a stop signal came to any process.
    """
    world, stop = world or World(), stop or StopRequest()
    ledger.begin_anew()
    counts = torch.zeros(3, dtype=torch.float64)
    done = partial.begin(counts, ledger) if partial else 0
    places = list(itertools.islice(table.places(world), done, None))
    samples = table.read(iter(places))

    def example(sample: dict[str, Any]) -> tuple[Tensor, int]:
        return views(sample), sample["label"]

    bar = progress_bar("evaluate", total=table.samples, shown=world.leads)
    examples = ordered_map(ledger.noting(example), samples, workers=threads, ahead=2 * batch)
    try:
        with contextlib.closing(samples), contextlib.closing(examples), bar:
            asking = until_stopped(examples, stop, world, count=len(places))
            decoded = ((at, each) for at, each in enumerate(asking, start=done) if each is not None)
            for last, images_BCHW, labels_B in _batches(decoded, batch):
                inputs_BCHW = pixels(images_BCHW)
                with torch.autocast(inputs_BCHW.device.type, torch.bfloat16, enabled=bf16):
                    logits_BY = classify(inputs_BCHW)
                answers_B5 = logits_BY.topk(min(5, logits_BY.shape[1])).indices.cpu()
                right_B5 = answers_B5 == labels_B[:, None]
                counts += torch.tensor(
                    [int(right_B5[:, 0].sum()), int(right_B5.sum()), len(labels_B)]
                )
                bar.update(len(labels_B) * world.size)
                done = last + 1
    except InterruptedRunError:
        if partial:
            partial.keep(done, counts, ledger)
        raise
    ledger.settle(world)
    scores = ClassificationScores(*(round(value) for value in world.total(counts).tolist()))
    if not scores.images:
        raise DataError(NONE_READABLE)
    return scores


def _batches(
    examples: Iterator[tuple[int, tuple[Tensor, int]]], size: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield uint8 images and int64 labels, and the number of the last; what is left in the end.

    Where a stop signal ends the examples, those that are there already are a batch, too.
    """
    some: list[tuple[int, tuple[Tensor, int]]] = []
    try:
        for example in examples:
            some.append(example)
            if len(some) == size:
                yield _batch(some)
                some = []
    except InterruptedRunError:
        if some:
            yield _batch(some)
        raise
    if some:
        yield _batch(some)


def _batch(some: list[tuple[int, tuple[Tensor, int]]]) -> tuple[int, Tensor, Tensor]:
    images, labels = zip(*(example for _, example in some), strict=True)
    return some[-1][0], torch.stack(images), torch.tensor(labels)


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
        self._table = table
        self.ledger = ledger
        self._config = config
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
            return score(
                classify,
                self._table,
                self._views,
                self._pixels,
                batch=self._config.batch,
                threads=self._config.threads,
                ledger=self.ledger,
                bf16=self._config.bf16,
                world=world,
                stop=stop,
                partial=partial,
            )

    def pictures(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Return no pictures."""
        del weights
        return {}
