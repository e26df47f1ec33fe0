"""Intervals and tests equal published and independently computed values."""

import numpy as np
import pytest
from scipy.stats import binomtest

from milan_pipeline.evaluate.intervals import difference, mcnemar, wilson, wilson_of


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 857, table I, method 3.
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_wilsons_interval_is_the_published_one(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=0.005)
    theirs = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson(right, total) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)


def test_the_interval_of_an_accuracy_is_that_of_its_count():
    assert wilson_of({"knn@20": 100 * 97 / 372}, 372) == {"knn@20": wilson(97, 372)}
    assert wilson(20, 20)[1] == 100


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 873, table II, method 10.
    [((56, 70), (48, 80), 5.24, 33.39), ((9, 10), (3, 10), 17.05, 80.90)],
)
def test_the_interval_of_a_difference_is_the_published_one(a, b, low, high):
    shares = (100 * right / total for right, total in (a, b))
    first, second = ((share, wilson(*of)) for share, of in zip(shares, (a, b), strict=True))
    assert difference(*first, *second) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 5), (12, 3), (7, 7), (400, 300)])
def test_mcnemars_test_is_the_binomial_one(only_a, only_b):
    a = np.repeat([True, False, True, False], [only_a, only_b, 9, 4])
    b = np.repeat([False, True, True, False], [only_a, only_b, 9, 4])
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
