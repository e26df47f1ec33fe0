"""Warns of samples that are sorted by class, when shards are indexed and before a run trains."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from milan_pipeline.data.order import EpochOrder, OrderConfig

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from milan_pipeline.data.labelled import LabelledTable


MIXED_ENOUGH = 0.8
# The default --lanes times the default --shuffle-block: so many samples are mixed at a time.
MIXED = 64 * 4096


class ClassOrder:
    """What is known of the order of classes; several threads may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[bytes] = Counter()
        self._neighbours = 0
        self._alike = 0

    def add(self, classes: Sequence[bytes]) -> None:
        """Take in the classes of a tar's samples, in their order; of unlabelled ones none."""
        alike = sum(one == other for one, other in pairwise(classes))
        with self._lock:
            self._counts.update(classes)
            self._neighbours += max(0, len(classes) - 1)
            self._alike += alike

    @property
    def is_sorted(self) -> bool:
        """Whether neighbours have one class far more often than in a shuffled order."""
        total = self._counts.total()
        if not self._neighbours:
            return False
        by_chance = sum((count / total) ** 2 for count in self._counts.values())
        return self._alike / self._neighbours > (1 + by_chance) / 2

    def warn(self, folder: str) -> None:
        """Say so where sorted samples are more than training mixes."""
        if self._counts.total() > MIXED and self.is_sorted:
            logger.warning(
                "the tars of %s are sorted by class, and training mixes %d samples at a time "
                "unless options say otherwise, so that its batches would have few classes; unpack "
                "them and let `milan-pipeline pack-images` shuffle, or train with more --lanes and "
                "a larger --shuffle-block",
                folder,
                MIXED,
            )


def classes_of_a_batch(table: "LabelledTable", order: OrderConfig) -> tuple[int, float]:
    """Count the classes in the first batch.

    Returns:
        How many there are, and how many a batch that is drawn at random has on average.
    """
    batch = EpochOrder(table.counts(0), order, 0)
    rows = np.concatenate([batch.lane_step(lane, 0) for lane in range(order.lanes)])
    found = {int(table.parts[part].labels[row]) for part, row in rows}
    counts = np.bincount(np.concatenate([part.labels for part in table.parts]))
    missed_Y = (1 - counts / counts.sum()) ** order.batch
    return len(found), float((1 - missed_Y).sum())


def warn_of_class_order(table: "LabelledTable", order: OrderConfig, place: str) -> None:
    """Say so where batches have few classes, since samples come sorted by them.

    Args:
        table: of class numbers, to learn from.
        order: that it is read in.
        place: where it lies.
    """
    found, expected = classes_of_a_batch(table, order)
    if found < MIXED_ENOUGH * expected and expected - found >= 1:
        logger.warning(
            "--train %s is sorted by class: the first batch of %d has %d classes where one drawn "
            "at random has %.0f; give more --lanes or a larger --shuffle-block than %d, or shards "
            "of `milan-pipeline pack-images`, which shuffles",
            *(place, order.batch, found, expected, order.block),
        )
