"""mIoU, mAcc and aAcc of a segmenter, each process scoring its share of the images.

Legend: B batch, H height, W width, Y classes.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix

from milan_pipeline.classification_scores import NONE_READABLE, readable
from milan_pipeline.distributed import World
from milan_pipeline.errors import DataError
from milan_pipeline.labelled import LabelledTable
from milan_pipeline.parallel import ordered_map
from milan_pipeline.progress import progress_bar
from milan_pipeline.run_ledger import RunLedger
from milan_pipeline.segmentation_inference import Exhibit, Exhibits, Inference
from milan_pipeline.segmentation_masks import IGNORED


@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """How labelled pixels were told apart.

    Attributes:
        confusion_YY: int64, pixels of each class (row) that were taken for each (column).
        images: how many they are of.
    """

    confusion_YY: NDArray[np.int64]
    images: int

    def ious(self) -> NDArray[np.float64]:
        """Return each class's intersection over union; NaN of one in neither truth nor answers."""
        right = self.confusion_YY.diagonal()
        union = self.confusion_YY.sum(axis=0) + self.confusion_YY.sum(axis=1) - right
        return _shares(right, union)

    def accuracies(self) -> NDArray[np.float64]:
        """Return the share of each class's pixels that were found; NaN of one without pixels."""
        return _shares(self.confusion_YY.diagonal(), self.confusion_YY.sum(axis=1))

    def per_cent(self) -> dict[str, float]:
        """Return mIoU, mAcc and aAcc in per cent.

        As in mmsegmentation, means are over the classes that have a figure: one that is in neither
        truth nor answers has no IoU, and one that is not in the truth no accuracy.
        """
        right, total = np.trace(self.confusion_YY), self.confusion_YY.sum()
        return {
            "miou": 100 * float(np.nanmean(self.ious())),
            "macc": 100 * float(np.nanmean(self.accuracies())),
            "aacc": 100 * float(right / total),
        }


def score(
    inference: Inference,
    exhibits: Exhibits,
    table: LabelledTable,
    *,
    classes: int,
    batch: int,
    threads: int,
    ledger: RunLedger,
    world: World | None = None,
) -> SegmentationScores:
    """Score a segmenter on all images of a table, together with the other processes.

    What cannot be decoded is left out and noted in the ledger.

    Args:
        inference: the segmenter, in evaluation mode.
        exhibits: what it is shown.
        table: of images and masks.
        classes: Y.
        batch: images that are looked at together, where they are of one size.
        threads: that decode.
        ledger: of the images.
        world: the processes, each of which must come here.

    Raises:
        DataError: a mask cannot be used, or more images than the ledger puts up with cannot be
            decoded, or all.
    """
    world = world or World()
    confusion_YY = torch.zeros(classes, classes, dtype=torch.float64)
    samples = table.read(table.places(world.rank, world.size))
    shown = ordered_map(ledger.noting(exhibits), samples, workers=threads, ahead=2 * batch)
    bar = progress_bar("evaluate", total=table.samples, shown=world.leads)
    with contextlib.closing(samples), contextlib.closing(shown), bar:
        for some in _alike(readable(shown), batch):
            answers_BHW = inference.labels(some)
            labels_BHW = torch.stack([exhibit.labels_HW for exhibit in some]).long()
            confusion_YY += multiclass_confusion_matrix(
                answers_BHW,
                labels_BHW.to(answers_BHW.device),
                num_classes=classes,
                ignore_index=IGNORED,
                validate_args=False,  # labels were checked when they were decoded
            ).cpu()
            bar.update(len(some) * world.size)
    ledger.settle(world)
    if ledger.count == table.samples:
        raise DataError(NONE_READABLE)
    # float64 counts exactly up to 2^53 pixels.
    whole = world.total(confusion_YY).round().to(torch.int64)
    return SegmentationScores(whole.numpy(), table.samples - ledger.count)


def _alike(shown: Iterator[Exhibit], size: int) -> Iterator[list[Exhibit]]:
    """Yield exhibits of equal shapes together, at most so many, in order."""
    for _, group in itertools.groupby(shown, key=lambda exhibit: exhibit.shapes):
        while some := list(itertools.islice(group, size)):
            yield some


def _shares(part_Y: NDArray[np.int64], of_Y: NDArray[np.int64]) -> NDArray[np.float64]:
    shares_Y = np.full(len(of_Y), np.nan)
    np.divide(part_Y, of_Y, out=shares_Y, where=of_Y > 0)
    return shares_Y
