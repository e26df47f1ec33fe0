"""A long list of texts in two buffers.

A list of Python objects takes some hundred bytes a text. It is copied, page by page, into each
forked process that reads it, too, since reading an object writes its reference count.
"""

import heapq
import itertools
import os
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN = 1 << 16


class TextTable:
    """Texts by row. File names of any bytes are kept, in the form that `os.fsdecode` gives them."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])
        self._row_n: NDArray[np.int64] | None = None
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text; only to a table that no rows were taken of."""
        self._bytes += os.fsencode(text)
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._row_n is None else len(self._row_n)

    def __getitem__(self, row: int | np.integer[Any]) -> str:
        at = range(len(self))[row] if self._row_n is None else self._row_n[row]
        return os.fsdecode(bytes(self._bytes[self._ends[at] : self._ends[at + 1]]))

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def take(self, rows_n: NDArray[np.int64]) -> "TextTable":
        """Return some rows, in their order; the texts are shared."""
        table = TextTable.__new__(TextTable)
        table._bytes, table._ends = self._bytes, self._ends
        table._row_n = rows_n if self._row_n is None else self._row_n[rows_n]
        return table


def in_order(texts: Iterable[str], *, run: int = RUN) -> Iterator[str]:
    """Yield texts in ascending order; all of them are read before this returns.

    Args:
        texts: any number, such as the names in a folder of a million files.
        run: how many are objects at a time while they are sorted; the rest lie in tables.
    """
    left = iter(texts)
    runs = iter(lambda: sorted(itertools.islice(left, run)), [])
    return heapq.merge(*[TextTable(texts) for texts in runs])
