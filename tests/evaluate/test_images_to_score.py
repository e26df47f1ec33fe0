"""How many images to score are read ahead of the threads that decode them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.evaluate.images_to_score import WAITING_BYTES, ImagesToScore
from milan_pipeline.shards.random_access import Read

SAMPLES, BATCH, THREADS = 200, 32, 2


class Noting:
    """Images of some size that counts which were read; a `labelled.LabelledPart`."""

    url = "/images.tar"
    labels = np.zeros(SAMPLES, np.int64)

    def __init__(self, size: int) -> None:
        self._size = size
        self.read = 0

    def __len__(self) -> int:
        return SAMPLES

    def key(self, row: int) -> str:
        return f"{row}"

    def name(self, row: int) -> str:
        return f"{row}"

    def lengths(self) -> NDArray[np.int64]:
        return np.full(SAMPLES, self._size)

    def digest(self, row: int) -> int:
        return row

    def image(self, row: int, read: Read) -> bytes:
        del row, read
        self.read += 1
        return bytes(self._size)

    def mask(self, row: int, read: Read) -> bytes:
        raise NotImplementedError

    def take(self, rows_n: NDArray[np.int64]) -> "Noting":
        raise NotImplementedError

    def shuffled(self, seed: int) -> "Noting":
        raise NotImplementedError


def alone(examples: Iterator[Any], size: int) -> Iterator[list[Any]]:
    del size
    return ([each] for each in examples)


@pytest.mark.parametrize(
    ("size", "ahead"),
    [(10, 2 * BATCH), (WAITING_BYTES // 16, 16), (WAITING_BYTES, 2 * THREADS)],
)
def test_large_images_wait_in_no_more_memory(tmp_path: Path, size: int, ahead: int) -> None:
    part = Noting(size)
    table = LabelledTable(parts=[part], kind="class", classes=(), source="")
    ledger = RunLedger(tmp_path, "val", fraction=0.0, images=SAMPLES)
    images = ImagesToScore(table=table, ledger=ledger, batch=BATCH, threads=THREADS)
    with contextlib.closing(images.batches(len, alone, torch.zeros(1))) as batches:
        next(batches)
        assert part.read == ahead
