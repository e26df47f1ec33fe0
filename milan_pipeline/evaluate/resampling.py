"""How sure an mIoU is: a bootstrap over images, from the pixels that each image counts.

Legend: n images, Y classes, S resamples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.evaluate.intervals import LEVEL, Interval

RESAMPLES = 1000
AT_ONCE = 50
RIGHT, TRUTH, ANSWERED = range(3)
"""Rows of an image's counts of pixels: right ones, those of the class, those taken for it."""

Counts = NDArray[np.int32]
"""(n, 3, Y)."""


def miou_interval(counts_n3Y: Counts) -> Interval | None:
    """Return the 95% interval of mIoU in per cent, by the percentiles of a bootstrap over images.

    (Efron, Annals of Statistics 7, 1979.) The draws are the same each time. In each resample the
    mean is over the classes that it has, as in `SegmentationScores`. None for a single image, which
    says nothing of others. Images without a labelled pixel do not count.
    """
    labelled_n3Y = counts_n3Y[counts_n3Y[:, TRUTH].any(axis=-1)]
    return _percentiles(resampled_mious(labelled_n3Y)) if len(labelled_n3Y) > 1 else None


def miou_difference(a_S: NDArray[np.float64], b_S: NDArray[np.float64]) -> Interval:
    """Return the 95% interval of the first mIoU less the second, both of the same images.

    It is a paired bootstrap: each resample has the same images for both.

    Args:
        a_S: of `resampled_mious`.
        b_S: likewise.
    """
    return _percentiles(a_S - b_S)


def ious(counts_3Y: NDArray[Any]) -> NDArray[np.float64]:
    """Return each class's intersection over union in [0, 1], NaN of classes without a pixel.

    Args:
        counts_3Y: (..., 3, Y), summed over images.
    """
    right, truth, answered = (counts_3Y[..., row, :] for row in (RIGHT, TRUTH, ANSWERED))
    return shares(right, truth + answered - right)


def shares(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Return part over whole, NaN where the whole is 0."""
    found = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of all that is no NaN; NaN where nothing else is there."""
    known = np.isfinite(values).sum(axis=-1)
    return shares(np.nansum(values, axis=-1), known)


def resampled_mious(counts_n3Y: Counts) -> NDArray[np.float64]:
    """Return the mIoU of each resample in per cent, (S,); of as many images, always the same."""
    images, _, classes = counts_n3Y.shape
    flat = counts_n3Y.reshape(images, -1).astype(np.float64)
    sums = (times @ flat for times in _draws(images))
    return np.concatenate([100 * mean_known(ious(each.reshape(-1, 3, classes))) for each in sums])


def _draws(images: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each image is in each of some resamples, (AT_ONCE, n)."""
    generator = np.random.Generator(np.random.PCG64(0))
    even = np.full(images, 1 / images)
    for _ in range(RESAMPLES // AT_ONCE):
        yield generator.multinomial(images, even, size=AT_ONCE).astype(np.float64)


def _percentiles(values_S: NDArray[np.float64]) -> Interval:
    low, high = np.nanpercentile(values_S, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
