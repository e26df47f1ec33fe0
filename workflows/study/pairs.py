"""Two rows of a study compared image by image, over images and seeds together.

An interval is the percentiles of a bootstrap that draws seeds and test images anew, each with
replacement, and takes the same draws for both rows (a two-way bootstrap, as of Owen, Annals of
Applied Statistics 1, 2007, 386). With as few seeds as two or three it is too narrow.

Legend: S seeds, N images, Y classes, D draws.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.evaluate.per_image import answers_of, counts_of
from milan_pipeline.evaluate.resampling import TRUTH, ious, mean_known
from milan_pipeline.evaluate.scores_file import Result
from workflows.study.results import Results
from workflows.study.spec import Study

DRAWS, AT_ONCE = 1000, 50
LEVEL = 0.95
Weights = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """By how much one row is above another, in per cent.

    Attributes:
        measure: title of the column.
        above: the row that is meant to be the better.
        below: the other.
        by_seed: the differences.
        interval: of their mean at 95%; None where answers to the same images were not kept.
    """

    measure: str
    above: str
    below: str
    by_seed: dict[int, float]
    interval: tuple[float, float] | None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(list(self.by_seed.values())))

    def __str__(self) -> str:
        sure = "no interval: answers to the same images were not kept"
        if self.interval is not None:
            low, high = self.interval
            shown = "" if low > 0 or high < 0 else ": no difference is shown"
            sure = f"95% interval {low:+.1f} to {high:+.1f}{shown}"
        side = "above" if self.mean >= 0 else "below"
        return f"{self.measure}: {self.above} is {abs(self.mean):.1f} {side} {self.below}, {sure}"


def pairs_of(study: Study, results: Results) -> list[Pair]:
    """Compare the study's pairs of rows by each measure that both have, over the seeds of both."""
    found = []
    for above, below in study.pairs:
        for title, measure in study.measures.items():
            ours, theirs = results[above][title], results[below][title]
            seeds = [seed for seed in ours if seed in theirs]
            if seeds:
                both = [(ours[seed], theirs[seed]) for seed in seeds]
                found.append(_pair(title, measure.metric, (above, below), seeds, both))
    return found


def _pair(
    title: str,
    metric: str,
    names: tuple[str, str],
    seeds: Sequence[int],
    both: Sequence[tuple[Result, Result]],
) -> Pair:
    differences = {
        seed: one.metrics[metric] - other.metrics[metric]
        for seed, (one, other) in zip(seeds, both, strict=True)
    }
    interval = _of_accuracies(metric, both) or _of_miou(metric, both)
    above, below = names
    return Pair(measure=title, above=above, below=below, by_seed=differences, interval=interval)


def _of_accuracies(
    metric: str, both: Sequence[tuple[Result, Result]]
) -> tuple[float, float] | None:
    """Return the interval of a difference of accuracies; None if answers were not kept."""
    ahead = []
    for results in both:
        kept = [answers_of(result, metric) for result in results]
        if kept[0] is None or kept[1] is None or not np.array_equal(kept[0][0], kept[1][0]):
            return None
        (truth_N, ours_N), (_, theirs_N) = kept[0], kept[1]
        ahead.append((ours_N == truth_N).astype(np.float64) - (theirs_N == truth_N))
    if len({len(each_N) for each_N in ahead}) > 1:
        return None
    ahead_SN = 100 * np.stack(ahead)

    def differences(images_DN: Weights) -> Weights:
        summed_DS: Weights = images_DN @ ahead_SN.T
        return summed_DS

    return _percentiles(ahead_SN.shape, differences)


def _of_miou(metric: str, both: Sequence[tuple[Result, Result]]) -> tuple[float, float] | None:
    """Return the interval of a difference of mIoU; None if pixels of one truth were not kept."""
    if metric.partition("@")[0].removeprefix("knn-") != "miou":
        return None
    kept = [[counts_of(result, metric) for result in results] for results in both]
    counts = [each for results in kept for each in results if each is not None]
    if len(counts) < 2 * len(both):
        return None
    if any(not np.array_equal(each[:, TRUTH], counts[0][:, TRUTH]) for each in counts):
        return None
    images, _, classes = counts[0].shape

    def differences(images_DN: Weights) -> Weights:
        mious = [
            100 * mean_known(ious((images_DN @ each.reshape(images, -1)).reshape(-1, 3, classes)))
            for each in counts
        ]
        pairs = zip(mious[::2], mious[1::2], strict=True)
        ahead_DS: Weights = np.stack([ours_D - theirs_D for ours_D, theirs_D in pairs], axis=1)
        ahead_DS *= images
        return ahead_DS

    return _percentiles((len(both), images), differences)


def _percentiles(
    shape: tuple[int, ...], differences: Callable[[Weights], Weights]
) -> tuple[float, float]:
    """Return the interval of the mean difference over drawn seeds and images.

    Args:
        shape: S and N.
        differences: (D, S) times N, of how often each image was drawn (D, N).
    """
    seeds, images = shape
    values = np.concatenate(
        [
            (differences(images_DN) * seeds_DS).sum(axis=1) / (seeds * images)
            for images_DN, seeds_DS in _draws(images, seeds)
        ]
    )
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _draws(images: int, seeds: int) -> Iterator[tuple[Weights, Weights]]:
    """Yield how often each image and each seed is drawn, the same on each call."""
    generator = np.random.Generator(np.random.PCG64(0))
    for _ in range(DRAWS // AT_ONCE):
        images_DN = generator.multinomial(images, np.full(images, 1 / images), size=AT_ONCE)
        seeds_DS = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=AT_ONCE)
        yield images_DN.astype(np.float64), seeds_DS.astype(np.float64)
