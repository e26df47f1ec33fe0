"""How sure a score is: 95% intervals, and whether two scores differ by more than chance.

All scores are in per cent. Intervals are those of the drawn images alone: they say what the same
weights would score on other images of the same kind, not what another seed would train.

Legend: N images.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
"""The lower and the upper end, in per cent."""

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def wilson(right: int, total: int) -> Interval:
    """Return the score interval of Wilson (1927) for the share of right answers, at 95%.

    It is method 3 of Newcombe, "Two-sided confidence intervals for the single proportion",
    Statistics in Medicine 17 (1998), 857-872; without a correction for continuity.

    Args:
        right: how many are right.
        total: of how many, at least 1.
    """
    share = right / total
    centre = share + Z**2 / (2 * total)
    half = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    low, high = (100 * (centre + sign * half) / (1 + Z**2 / total) for sign in (-1, 1))
    return max(0.0, low), min(100.0, high)


def wilson_of(shares: Mapping[str, float], images: int) -> dict[str, Interval]:
    """Return the interval of each accuracy, by its name.

    Args:
        shares: accuracies in per cent, by name.
        images: of which each is a share.
    """
    return {name: wilson(round(value * images / 100), images) for name, value in shares.items()}


def difference(a: float, of_a: Interval, b: float, of_b: Interval) -> Interval:
    """Return the 95% interval of `a - b`, of two scores that each have their own.

    For intervals of `wilson` it is method 10 of Newcombe, "Interval estimation for the difference
    between independent proportions", Statistics in Medicine 17 (1998), 873-890. Scores of the same
    images are not independent but alike, so it is too wide for them rather than too narrow.
    """
    low = math.hypot(a - of_a[0], of_b[1] - b)
    high = math.hypot(of_a[1] - a, b - of_b[0])
    return a - b - low, a - b + high


def mcnemar(right_a_N: NDArray[np.bool_], right_b_N: NDArray[np.bool_]) -> float:
    """Return the p-value of McNemar's exact test (Psychometrika 12, 1947), two-sided.

    It looks at the images that only one of two encoders answers rightly. If they are equally good,
    each of these is as likely to be the one's as the other's.

    Args:
        right_a_N: which images the first answers rightly.
        right_b_N: which the second does, in the same order.
    """
    only_a, only_b = int((right_a_N & ~right_b_N).sum()), int((right_b_N & ~right_a_N).sum())
    total, term, below = only_a + only_b, 1, 0
    for number in range(min(only_a, only_b) + 1):
        below += term
        term = term * (total - number) // (number + 1)
    return min(1.0, float(Fraction(2 * below, 2**total)))
