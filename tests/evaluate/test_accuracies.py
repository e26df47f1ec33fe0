"""Accuracies are per cent of all images, and their table has two digits."""

import numpy as np
import pytest

from milan_pipeline.evaluate.accuracies import (
    accuracy,
    accuracy_interval,
    accuracy_table,
    per_cent,
)


def test_an_accuracy_is_the_share_of_right_answers():
    assert accuracy(np.array([1, 2, 3, 3]), np.array([1, 2, 3, 0])) == 75.0
    assert per_cent(1, 8) == 12.5


@pytest.mark.parametrize(
    ("value", "samples", "low", "high"),
    [(50.0, 100, 40.383, 59.617), (0.0, 10, 0.0, 27.754), (100.0, 10, 72.246, 100.0)],
)
def test_an_interval_is_wilson_s_and_stays_within_all_and_none(value, samples, low, high):
    assert accuracy_interval(value, samples) == pytest.approx((low, high), abs=1e-3)


def test_a_table_has_a_column_for_each_accuracy_and_for_each_count():
    accuracies, counts = {"top-1 %": 81.238, "top-5 %": 95.0}, {"val": 12345, "bad": 0}
    table = accuracy_table("MILAN", accuracies, counts, {})
    assert table.splitlines() == [
        "encoder   top-1 %   top-5 %     val   bad",
        "MILAN       81.24     95.00   12345     0",
    ]
    table = accuracy_table("MILAN", accuracies, counts, {"top-1 %": (80.54, 81.91)})
    assert table.splitlines() == [
        "encoder          top-1 %   top-5 %     val   bad",
        "MILAN              81.24     95.00   12345     0",
        "95% interval   80.5\u201381.9",
    ]
