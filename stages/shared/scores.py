"""How stages that evaluate show their scores, and keep what belongs to them."""

from collections.abc import Mapping
from typing import Any

from milan_pipeline import storage
from milan_pipeline.evaluate.accuracies import accuracy_table
from milan_pipeline.evaluate.scores_file import Result

CLASSES = "classes_in_mean"
"""In scores and table: over how many classes a mean is taken, where that may be few."""


def scores_table(
    result: Result, counts: Mapping[str, Any], columns: Mapping[str, str] | None = None
) -> str:
    """Lay scores out as a table: the scores, and their intervals below them.

    Args:
        result: the scores.
        counts: numbers of images, by the heading of their column.
        columns: the heading of each score, which is left out where there is none; the best one of
            a run that did not train is its only. By default all scores have their own names.
    """
    metrics = result.metrics
    columns = columns or {name: f"{name} %" for name in metrics}
    found = {name: metrics.get(name, metrics.get(name.removeprefix("best-"))) for name in columns}
    return accuracy_table(
        result.name,
        {columns[name]: value for name, value in found.items() if value is not None},
        counts,
        {columns[name]: ends for name, ends in result.intervals.items() if name in columns},
    )


def labelled_table(result: Result, columns: Mapping[str, str]) -> str:
    """Lay the scores of `finetune` or `segment` out; see `scores_table`."""
    extras = result.extras
    notes = {"classes": extras[CLASSES]} if CLASSES in extras else {}
    counts = {
        "train": extras.get("train", 0),
        "val": extras["val"],
        "skipped": sum(extras["unreadable"].values()),
    }
    return scores_table(result, notes | counts, columns)


def write_files(folder: str, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, by their names.

    Raises:
        StorageError: the folder cannot be written.
    """
    for name, data in files.items():
        storage.put_bytes(storage.join(folder, name), data)
