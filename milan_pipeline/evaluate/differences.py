"""Which rows of a table of results a test does not tell apart, at 95% for each pair of rows.

Where both stages kept what they answered for each image, the test is a paired one: McNemar's exact
test for accuracies, a bootstrap over images for mIoU. Else it is the interval of the difference of
two scores, which is too wide for scores of the same images. No level is corrected for the number
of pairs.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.evaluate.comparison import Row, metric_names, near
from milan_pipeline.evaluate.dense_protocol import scoring_of
from milan_pipeline.evaluate.intervals import LEVEL, Interval, difference, mcnemar
from milan_pipeline.evaluate.per_image import answers_of, counts_of
from milan_pipeline.evaluate.resampling import TRUTH, miou_difference, resampled_mious
from milan_pipeline.evaluate.scores_file import Result

SCORED = ("test", "val")
"""Under which name stages record the fingerprint of the images that they scored."""
MOST_LINES = 12

ValueT = TypeVar("ValueT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tie:
    """Two results that a test does not tell apart.

    Attributes:
        metric: by which.
        better: the result whose score is higher.
        other: the other one.
        test: which test it is, in words.
        p: its p-value; None of a test by intervals.
    """

    metric: str
    better: Result
    other: Result
    test: str
    p: float | None


def ties(rows: Sequence[Row]) -> list[Tie]:
    """Return the pairs of rows that are not told apart, by metric and score.

    Only rows of one stage, one result, the same scored images and, if any, the same way to score
    pixels are compared, by the metrics that both have an interval of or kept answers to.

    Args:
        rows: of `comparison.rows_of`.
    """
    kept, found = _Kept(), []
    single = [row.results[0] for row in rows if len(row.results) == 1 and _scored(row.results[0])]
    for metric in metric_names(rows):
        having = [result for result in single if metric in result.metrics]
        having.sort(key=lambda result: -result.metrics[metric])
        for better, other in itertools.combinations(having, 2):
            if _alike(better) == _alike(other):
                found.append(_tie(metric, better, other, kept))
    return [tie for tie in found if tie is not None]


def lines_of(found: Sequence[Tie]) -> Iterator[str]:
    """Yield a line for each pair, the first ones of many."""
    for tie in found[:MOST_LINES]:
        names = [tie.better.name, tie.other.name]
        if names[0] == names[1]:
            names = [near(tie.better), near(tie.other)]
        p = "" if tie.p is None else f", p = {tie.p:.2g}"
        yield f"{tie.metric}: {names[0]} and {names[1]} do not differ ({tie.test}{p})"
    if len(found) > MOST_LINES:
        yield f"and {len(found) - MOST_LINES} pairs more, which --json lists"


def ties_of(result: Result, found: Sequence[Tie]) -> list[dict[str, Any]]:
    """Return a result's pairs as JSON objects: metric, the other's folder, test and p."""
    return [
        {"metric": t.metric, "folder": other.folder, "test": t.test, "p": t.p}
        for t in found
        for other in (t.other if t.better is result else t.better,)
        if result in (t.better, t.other)
    ]


class _Kept:
    """What results keep of each image, each read once."""

    def __init__(self) -> None:
        self._found: dict[Any, Any] = {}

    def of(self, read: Callable[..., ValueT | None], result: Result, *metric: str) -> ValueT | None:
        key = (read, id(result), *metric)
        if key not in self._found:
            self._found[key] = read(result, *metric)
        found: ValueT | None = self._found[key]
        return found

    def mious(self, result: Result, metric: str) -> NDArray[np.float64] | None:
        """Return `resampled_mious` of what a result counted."""
        counts_N3Y = self.of(counts_of, result, metric)
        return None if counts_N3Y is None else resampled_mious(counts_N3Y)


def _scored(result: Result) -> Any:
    """Return the fingerprint of the images that were scored; None where it is not known."""
    return next((result.inputs[name] for name in SCORED if name in result.inputs), None)


def _alike(result: Result) -> Any:
    """Return what two results must have in common to be compared."""
    return result.stage, _scored(result), scoring_of(result)


def _tie(metric: str, better: Result, other: Result, kept: _Kept) -> Tie | None:
    """Return the pair if it is not told apart; None if it is, or if nothing is known."""
    p, test = None, "95% interval of the difference"
    a, b = (kept.of(answers_of, result, metric) for result in (better, other))
    if a is not None and b is not None and np.array_equal(a[0], b[0]):
        p, test = mcnemar(a[1] == a[0], b[1] == b[0]), "McNemar's exact test"
        same = p >= 1 - LEVEL
    elif (paired := _paired_miou(metric, better, other, kept)) is not None:
        test = "paired bootstrap over images"
        same = paired[0] <= 0 <= paired[1]
    else:
        of_a, of_b = better.intervals.get(metric), other.intervals.get(metric)
        if of_a is None or of_b is None:
            return None
        low, high = difference(better.metrics[metric], of_a, other.metrics[metric], of_b)
        same = low <= 0 <= high
    return Tie(metric=metric, better=better, other=other, test=test, p=p) if same else None


def _paired_miou(metric: str, better: Result, other: Result, kept: _Kept) -> Interval | None:
    """Return the interval of the difference if this is mIoU and both kept the same truth."""
    if "miou" not in metric or metric.startswith("best-"):
        return None
    both = (better, other)
    counts = [c for r in both if (c := kept.of(counts_of, r, metric)) is not None]
    if len(counts) < 2 or not np.array_equal(counts[0][:, TRUTH], counts[1][:, TRUTH]):
        return None
    draws = [kept.of(kept.mious, result, metric) for result in both]
    return None if draws[0] is None or draws[1] is None else miou_difference(draws[0], draws[1])
