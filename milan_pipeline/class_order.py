"""Whether tars that others made are sorted by class, told while they are indexed."""

import threading
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from milan_pipeline.messages import warn

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
            warn(
                f"the tars of {folder} are sorted by class, and training mixes {MIXED} samples at "
                "a time unless told otherwise, so that its batches would have few classes; unpack "
                "them and let `milan-pipeline pack-images` shuffle, or train with more --lanes and "
                "a larger --shuffle-block"
            )
