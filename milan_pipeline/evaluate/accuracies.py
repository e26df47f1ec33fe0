"""Accuracies in per cent: how they are computed, and how they are written for people.

Legend: N samples.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.console import aligned
from milan_pipeline.evaluate.intervals import Interval

NORMAL_95 = 1.959964
"""Standard deviations of a normal distribution within which 95% of it lie."""


def per_cent(right: int, total: int) -> float:
    """Return how many of all are right, in per cent."""
    return 100 * right / total


def accuracy(answers_N: NDArray[np.int64], labels_N: NDArray[np.int64]) -> float:
    """Return how many answers equal the labels, in per cent."""
    return 100 * float(np.mean(answers_N == labels_N))


def accuracy_interval(value: float, samples: int) -> tuple[float, float]:
    """Return the 95% interval of an accuracy, in per cent, by Wilson's score.

    (E. B. Wilson, 1927, JASA 22:209.) It says what chance in the choice of samples does; training
    again with another seed may change more.

    Args:
        value: in per cent.
        samples: how many were scored.
    """
    share, squared = value / 100, NORMAL_95**2
    middle = share + squared / (2 * samples)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / samples + squared / (4 * samples * samples))
    scale = 100 / (1 + squared / samples)
    return max(0.0, (middle - half) * scale), min(100.0, (middle + half) * scale)


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
