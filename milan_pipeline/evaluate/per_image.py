"""What a stage keeps of each image that it scored, so that two encoders can be compared in pairs.

`answers.npy` has a row for each image that could be read, in the order of the images: the class
`label`, and the answer of each classifier. `counts.npy` has pixels; see `resampling`. `images.txt`
names these images, a line for each row.

Legend: N images.
"""

import io
import tokenize
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.resampling import Counts, ious, mean_known
from milan_pipeline.evaluate.scores_file import Result

ANSWERS, COUNTS, NAMES = "answers.npy", "counts.npy", "images.txt"
COUNT_BYTES = 3 * 4  # of a class of an image: three int32
LABEL = "label"
UNREADABLE = (ValueError, TypeError, OverflowError, MemoryError, EOFError, tokenize.TokenError)
"""What numpy raises of a file whose header is damaged."""


def npy(array: NDArray[np.generic]) -> bytes:
    """Return an array as a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def names_txt(names: Iterable[str]) -> bytes:
    """Return `images.txt`: a name in each line, whatever bytes it has.

    Args:
        names: SHARD/KEY, or the path in a folder.
    """
    lines = (name.replace("\n", "\\n").replace("\r", "\\r") for name in names)
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def answers_table(
    truth_N: NDArray[np.int64], answers: Mapping[str, NDArray[np.int64]]
) -> NDArray[np.void]:
    """Return the rows of `answers.npy`: a column `label` and one for each classifier, int64."""
    columns = {LABEL: truth_N, **answers}
    rows_N = np.empty(len(truth_N), [(name, "<i8") for name in columns])
    for name, values_N in columns.items():
        rows_N[name] = values_N
    return rows_N


def answers_of(result: Result, metric: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the labels and answers (N,) behind an accuracy; None where they are not kept.

    Answers that do not give this accuracy are of other weights, and count as not kept.
    """
    rows_N = _read(result, ANSWERS)
    if rows_N is None or rows_N.ndim != 1 or not rows_N.size:
        return None
    column = metric if metric in (names := _columns(rows_N)) else metric.partition("@")[0]
    column = column if column in names else column.partition("-")[0]
    if column not in names:
        return None
    labels_N, answers_N = rows_N[LABEL], rows_N[column]
    same = abs(accuracy(answers_N, labels_N) - result.metrics[metric]) < 1e-6
    return (labels_N, answers_N) if same else None


def counts_of(result: Result, metric: str) -> Counts | None:
    """Return each image's pixels (N, 3, Y) behind a mIoU; None where they are not kept.

    Counts that do not give this mIoU are of other weights or images, and count as not kept.
    """
    counts_N3Y = _read(result, COUNTS)
    if counts_N3Y is None or counts_N3Y.shape[1:-1] != (3,) or counts_N3Y.dtype.kind != "i":
        return None
    miou = 100 * float(mean_known(ious(counts_N3Y.sum(axis=0, dtype=np.int64))))
    same = abs(miou - result.metrics[metric]) < 1e-6
    return counts_N3Y.astype(np.int32) if same else None


def _columns(rows_N: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the columns; none if these are no labels and answers of whole numbers."""
    names = rows_N.dtype.names or ()
    whole = all(rows_N.dtype[name].kind == "i" for name in names)
    return names if LABEL in names and whole else ()


def _read(result: Result, name: str) -> NDArray[Any] | None:
    """Read a file beside the scores; a damaged one counts as not kept, as nothing depends on it."""
    try:
        data = storage.read_bytes(storage.join(result.folder, name))
        # np.load would take a zip file, too.
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (MissingDataError, StorageError, *UNREADABLE):
        return None
