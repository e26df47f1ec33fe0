"""Tables of the classes that a fine-tuned model was scored on: each one's scores, and mistakes.

Legend: N images, Y classes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.evaluate.accuracies import accuracy_text, interval_text, per_cent
from milan_pipeline.evaluate.intervals import wilson
from milan_pipeline.evaluate.per_image import answers_of, counts_of
from milan_pipeline.evaluate.resampling import ANSWERED, RIGHT, TRUTH, ious
from milan_pipeline.evaluate.scores_file import Result
from milan_pipeline.report.page import Table

MOST_CLASSES = 50
MATRIX_CLASSES = 20
MOST_MISTAKES = 20
COUNTS_WORDS = "Rows are the classes of the images, columns the answers."


def class_tables(result: Result, run: str) -> Iterator[Table]:
    """Yield the tables of a run's own scores; none if it did not keep what it answered.

    Args:
        result: of `finetune` or `segment`.
        run: what the page calls the run; empty if it is the only one.
    """
    names, of = result.extras.get("class_names") or [], f" of {run}" if run else ""
    answers = answers_of(result, "top1") if "top1" in result.metrics else None
    counts_N3Y = counts_of(result, "miou") if "miou" in result.metrics else None
    if answers is not None:
        yield _accuracies(*answers, names, of)
        yield _confusion(*answers, names, of)
    elif counts_N3Y is not None:
        yield _ious(counts_N3Y.sum(axis=0, dtype=np.int64), names, of)


def confusion(
    labels_N: NDArray[np.int64], answers_N: NDArray[np.int64], *, classes: int
) -> NDArray[np.int64]:
    """Count the images of each class (row) that were taken for each (column), (Y, Y).

    Args:
        labels_N: their classes.
        answers_N: what they were taken for.
        classes: Y, if no larger number is among them; the table has its square.
    """
    size = max(classes, _outputs(labels_N, answers_N))
    return np.bincount(labels_N * size + answers_N, minlength=size**2).reshape(size, size)


def mistakes(
    labels_N: NDArray[np.int64], answers_N: NDArray[np.int64]
) -> list[tuple[int, int, int]]:
    """Return which class was taken for which, and how often, the most frequent first.

    What it takes grows with the images, and not with the square of the classes.
    """
    wrong_N, size = labels_N != answers_N, _outputs(labels_N, answers_N)
    place_P, count_P = np.unique((labels_N * size + answers_N)[wrong_N], return_counts=True)
    order_P = np.argsort(-count_P, kind="stable")
    return [(*divmod(int(place_P[at]), size), int(count_P[at])) for at in order_P[:MOST_MISTAKES]]


def _outputs(labels_N: NDArray[np.int64], answers_N: NDArray[np.int64]) -> int:
    return 1 + int(max(labels_N.max(), answers_N.max()))


def named(number: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its number if it has none."""
    return names[number] if number < len(names) else str(number)


def _accuracies(
    labels_N: NDArray[np.int64], answers_N: NDArray[np.int64], names: Sequence[str], of: str
) -> Table:
    images_Y = np.bincount(labels_N)
    right_Y = np.bincount(labels_N[labels_N == answers_N], minlength=len(images_Y))
    scored = np.flatnonzero(images_Y)
    order = scored[np.argsort(right_Y[scored] / images_Y[scored], kind="stable")]
    rows = []
    for number in order[:MOST_CLASSES].tolist():
        right, images = int(right_Y[number]), int(images_Y[number])
        score, interval = per_cent(right, images), wilson(right, images)
        cells = [str(images), f"{accuracy_text(score)}%", interval_text(interval)]
        rows.append([named(number, names), *cells])
    return Table(
        anchor=_anchor("classes", of),
        title=f"Classes{of}",
        columns=("class", "images", "right", "95% interval, %"),
        rows=rows,
        words=_most(len(order)),
    )


def _confusion(
    labels_N: NDArray[np.int64], answers_N: NDArray[np.int64], names: Sequence[str], of: str
) -> Table:
    title, anchor = f"What was taken for what{of}", _anchor("confusion", of)
    if max(len(names), _outputs(labels_N, answers_N)) <= MATRIX_CLASSES:
        confusion_YY = confusion(labels_N, answers_N, classes=len(names))
        every = [named(number, names) for number in range(len(confusion_YY))]
        rows = [
            [name, *(str(count) for count in row)]
            for name, row in zip(every, confusion_YY.tolist(), strict=True)
        ]
        columns = ("class", *every)
        return Table(anchor=anchor, title=title, columns=columns, rows=rows, words=COUNTS_WORDS)
    rows = [
        [named(truth, names), named(answer, names), str(count)]
        for truth, answer, count in mistakes(labels_N, answers_N)
    ]
    columns = ("class", "taken for", "images")
    return Table(
        anchor=anchor, title=title, columns=columns, rows=rows, words="The most frequent mistakes."
    )


def _ious(totals_3Y: NDArray[np.int64], names: Sequence[str], of: str) -> Table:
    iou_Y = ious(totals_3Y)
    known = np.flatnonzero(np.isfinite(iou_Y))
    order = known[np.argsort(iou_Y[known], kind="stable")]
    right_Y, truth_Y, answered_Y = totals_3Y[RIGHT], totals_3Y[TRUTH], totals_3Y[ANSWERED]
    rows = [
        [
            named(number, names),
            f"{accuracy_text(100 * iou_Y[number])}%",
            f"{100 * right_Y[number] / truth_Y[number]:.2f}%" if truth_Y[number] else "",
            f"{truth_Y[number]:,}",
            f"{answered_Y[number]:,}",
        ]
        for number in order[:MOST_CLASSES].tolist()
    ]
    return Table(
        anchor=_anchor("classes", of),
        title=f"Classes{of}",
        columns=("class", "IoU", "right of its pixels", "pixels", "pixels taken for it"),
        rows=rows,
        words=_most(len(order)),
    )


def _most(classes: int) -> str:
    shown = f" Shown are {MOST_CLASSES} of {classes}." if classes > MOST_CLASSES else ""
    return f"The worst first.{shown}"


def _anchor(name: str, of: str) -> str:
    return f"{name}-{of.encode(errors='surrogateescape').hex()}" if of else name
