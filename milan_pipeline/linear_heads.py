"""What the trained linear classifiers share: their training set and its order.

Legend: N samples, F features.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from milan_pipeline.evaluation import require_classes, require_pairs
from milan_pipeline.features import Features, Labels
from milan_pipeline.keyed_random import keyed_generator

INITIAL_STD = 0.01
MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Features to learn from, in one view or several that take turns.

    Attributes:
        labels_N: class of each sample.
        views: how many views there are.
        read: returns the features of a view, (N, F) float32.
    """

    labels_N: Labels
    views: int
    read: Callable[[int], Features]

    def of_epoch(self, epoch: int) -> torch.Tensor:
        """Return the features that an epoch learns from: view `epoch` modulo the number of them.

        Raises:
            DataError: they are not as many as the labels.
        """
        features_NF = self.read(epoch % self.views)
        require_pairs(features_NF, self.labels_N)
        return torch.from_numpy(features_NF)


def numbered(labels_N: Labels) -> tuple[Labels, torch.Tensor]:
    """Return the classes in order, and each sample's place among them.

    Raises:
        DataError: there are fewer than two.
    """
    require_classes(labels_N)
    classes_Y, class_N = np.unique(labels_N, return_inverse=True)
    return classes_Y, torch.from_numpy(class_N)


def shuffled_batches(
    rows: NDArray[np.int64], batch: int, *, seed: int, epoch: int
) -> Iterator[torch.Tensor]:
    """Yield an epoch's full batches of rows, in an order that seed and epoch alone decide."""
    order = rows[keyed_generator("linear", seed, epoch).permutation(len(rows))]
    for start in range(0, len(order) - batch + 1, batch):
        yield torch.from_numpy(order[start : start + batch])


def draw_head(inputs: int, outputs: int, *, seed: int) -> nn.Linear:
    """Return a linear layer with weights of N(0, 0.01²) and no bias yet, drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(inputs, outputs)
        nn.init.trunc_normal_(head.weight, std=INITIAL_STD)
        nn.init.zeros_(head.bias)
    return head
