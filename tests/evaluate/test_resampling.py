"""The bootstrap of mIoU: nearly the normal interval where that is right, and paired."""

import numpy as np
import pytest

from milan_pipeline.evaluate.resampling import (
    ious,
    miou_difference,
    miou_interval,
    resampled_mious,
)


def images_of(right_n, total=100):
    """Return counts of images of one class and a background that is always right."""
    counts_n3Y = np.zeros((len(right_n), 3, 2), np.int32)
    counts_n3Y[:, :, 0] = np.stack([right_n, np.full_like(right_n, total), right_n], axis=1)
    counts_n3Y[:, :, 1] = 50
    return counts_n3Y


def interval_of(counts_n3Y):
    found = miou_interval(counts_n3Y)
    assert found is not None
    return found


def test_ious_are_right_over_union_and_none_of_absent_classes():
    counts_3Y = np.array([[3, 0, 0], [5, 2, 0], [4, 0, 0]])
    assert ious(counts_3Y) == pytest.approx([3 / 6, 0, np.nan], nan_ok=True)


def test_the_interval_is_that_of_a_mean_where_miou_is_one():
    right_n = np.random.default_rng(1).integers(0, 101, size=400)
    counts_n3Y = images_of(right_n)
    low, high = interval_of(counts_n3Y)
    # IoU of the class is the mean share of its pixels; mIoU is the mean of that and of 1.
    half = 1.96 * right_n.std() / 20 / 2
    middle = (right_n.mean() + 100) / 2
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=0.15)
    assert miou_interval(counts_n3Y) == (low, high)


def test_images_without_a_label_do_not_count():
    counts_n3Y = images_of(np.array([10, 60, 90]))
    empty = np.zeros((30, 3, 2), np.int32)
    assert miou_interval(np.concatenate([counts_n3Y, empty])) == miou_interval(counts_n3Y)
    assert miou_interval(counts_n3Y[:1]) is None


def test_a_paired_difference_sees_what_two_intervals_do_not():
    right_n = np.random.default_rng(1).integers(10, 91, size=100)
    worse, better = images_of(right_n), images_of(right_n + 4)
    low, high = miou_difference(*map(resampled_mious, (better, worse)))
    assert (low, high) == pytest.approx((2, 2), abs=1e-9)
    assert interval_of(better)[0] < interval_of(worse)[1]
