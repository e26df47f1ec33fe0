"""Accuracies in per cent: how they are computed, and how they are written for people.

Legend: N samples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.console import aligned
from milan_pipeline.evaluate.intervals import Interval


def per_cent(right: int, total: int) -> float:
    """Return how many of all are right, in per cent."""
    return 100 * right / total


def accuracy(answers_N: NDArray[np.int64], labels_N: NDArray[np.int64]) -> float:
    """Return how many answers equal the labels, in per cent."""
    return 100 * float(np.mean(answers_N == labels_N))


def accuracy_text(value: float) -> str:
    """Write an accuracy, in per cent, for people."""
    return f"{value:.2f}"


def interval_text(interval: Interval | None) -> str:
    """Write an interval, in per cent, for people; nothing where there is none."""
    return "" if interval is None else f"{interval[0]:.1f}\u2013{interval[1]:.1f}"


def accuracy_table(
    name: str,
    accuracies: Mapping[str, float],
    counts: Mapping[str, Any],
    intervals: Mapping[str, Interval],
) -> str:
    """Write a table of the encoder, its accuracies and numbers of images, and one of intervals.

    Args:
        name: of the encoder.
        accuracies: in per cent, by the heading of their column.
        counts: by the heading of their column.
        intervals: by the heading of the accuracy's column; those of accuracies without are empty.
    """
    texts = {heading: accuracy_text(value) for heading, value in accuracies.items()}
    cells = {"encoder": name} | texts | {heading: str(count) for heading, count in counts.items()}
    rows = [list(cells), list(cells.values())]
    if intervals:
        rows.append(["95% interval", *(interval_text(intervals.get(h)) for h in list(cells)[1:])])
    return "\n".join(line.rstrip() for line in aligned(rows))
