"""A classifier's top-1 and top-5 accuracy, each process scoring its share of the images.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from milan_pipeline.classification_task import Pixels
from milan_pipeline.classification_views import EvaluationViews
from milan_pipeline.distributed import World
from milan_pipeline.errors import DataError
from milan_pipeline.labelled import LabelledTable
from milan_pipeline.parallel import ordered_map
from milan_pipeline.progress import progress_bar
from milan_pipeline.run_ledger import RunLedger

NONE_READABLE = "not one of the images to score on can be decoded; give others"

ResultT = TypeVar("ResultT")


class Scores(NamedTuple):
    """How many images a classifier got right.

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
        return {"top1": 100 * self.top1 / self.images, "top5": 100 * self.top5 / self.images}


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
    bf16: bool = False,
) -> Scores:
    """Score a classifier on all images of a table, together with the other processes.

    What cannot be decoded is left out and noted in the ledger.

    Args:
        classify: gives logits (B, Y) of images (B, C, H, W), in evaluation mode.
        table: of labelled images.
        views: what of them it is shown.
        pixels: normalises them, on the classifier's device.
        batch: images in a forward pass.
        threads: that decode.
        ledger: of the images.
        world: the processes, each of which must come here.
        bf16: compute under bfloat16 autocast.

    Returns:
        The counts of all processes.

    Raises:
        DataError: more images than the ledger puts up with cannot be decoded, or all.
    """
    world = world or World()
    counts = torch.zeros(3, dtype=torch.float64)
    samples = table.read(table.places(world.rank, world.size))

    def seen(sample: dict[str, Any]) -> tuple[Tensor, int]:
        return views(sample), sample["label"]

    bar = progress_bar("evaluate", total=table.samples, shown=world.leads)
    shown = ordered_map(ledger.noting(seen), samples, workers=threads, ahead=2 * batch)
    with contextlib.closing(samples), contextlib.closing(shown), bar:
        for images_BCHW, labels_B in _batches(readable(shown), batch):
            inputs_BCHW = pixels(images_BCHW)
            with torch.autocast(inputs_BCHW.device.type, torch.bfloat16, enabled=bf16):
                logits_BY = classify(inputs_BCHW)
            answers_B5 = logits_BY.topk(min(5, logits_BY.shape[1])).indices.cpu()
            right_B5 = answers_B5 == labels_B[:, None]
            counts += torch.tensor([int(right_B5[:, 0].sum()), int(right_B5.sum()), len(labels_B)])
            bar.update(len(labels_B) * world.size)
    ledger.settle(world)
    scores = Scores(*(round(value) for value in world.total(counts).tolist()))
    if not scores.images:
        raise DataError(NONE_READABLE)
    return scores


def readable(shown: Iterable[ResultT | None]) -> Iterator[ResultT]:
    """Yield what could be decoded."""
    return (each for each in shown if each is not None)


def _batches(shown: Iterator[tuple[Tensor, int]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield uint8 images and int64 labels; the last batch has what is left."""
    while some := list(itertools.islice(shown, size)):
        images, labels = zip(*some, strict=True)
        yield torch.stack(images), torch.tensor(labels)
