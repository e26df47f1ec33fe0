"""Accuracies in per cent: how they are computed, and how they are written for people.

Legend: N samples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.console import aligned


def per_cent(right: int, total: int) -> float:
    """Return how many of all are right, in per cent."""
    return 100 * right / total


def accuracy(answers_N: NDArray[np.int64], labels_N: NDArray[np.int64]) -> float:
    """Return how many answers equal the labels, in per cent."""
    return 100 * float(np.mean(answers_N == labels_N))


def accuracy_text(value: float) -> str:
    """Write an accuracy, in per cent, for people."""
    return f"{value:.2f}"


def accuracy_table(name: str, accuracies: Mapping[str, float], counts: Mapping[str, Any]) -> str:
    """Write a table of one row: the encoder, its accuracies and numbers of images.

    Args:
        name: of the encoder.
        accuracies: in per cent, by the heading of their column.
        counts: by the heading of their column.
    """
    texts = {heading: accuracy_text(value) for heading, value in accuracies.items()}
    cells = {"encoder": name} | texts | {heading: str(count) for heading, count in counts.items()}
    return "\n".join(aligned([list(cells), list(cells.values())]))
