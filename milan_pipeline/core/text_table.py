"""A long list of texts in two arrays.

A list of Python objects is copied, page by page, into each forked process that reads it, since
reading an object writes its reference count. Arrays stay shared.
"""

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class TextTable:
    """Texts by row. File names of any bytes are kept, in the form that `os.fsdecode` gives them."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [os.fsencode(text) for text in texts]
        self._bytes = b"".join(encoded)
        self._end_n = np.cumsum([0, *(len(text) for text in encoded)], dtype=np.int64)
        self._row_n: NDArray[np.int64] = np.arange(len(encoded))

    def __len__(self) -> int:
        return len(self._row_n)

    def __getitem__(self, row: int) -> str:
        at = self._row_n[row]
        return os.fsdecode(self._bytes[self._end_n[at] : self._end_n[at + 1]])

    def take(self, rows_n: NDArray[np.int64]) -> "TextTable":
        """Return some rows, in their order; the texts are shared."""
        table = TextTable.__new__(TextTable)
        table._bytes, table._end_n = self._bytes, self._end_n
        table._row_n = self._row_n[rows_n]
        return table
