"""The files of a data set as columns: a million of them take 60 MB, as objects 500 MB."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.text_table import TextTable
from milan_pipeline.images.found_files import FoundFiles
from milan_pipeline.images.keys import UniqueKeys

NO_LABEL = -1


class Rows(Protocol):
    """What a table has of its images beside their names."""

    def image(self, row: int) -> bytes | None:
        """Return the bytes of an image that the table holds; None if it lies in a file."""

    def caption(self, row: int) -> bytes:
        """Return a row's caption in UTF-8; empty if it has none."""

    def where(self, row: int) -> str:
        """Say which row it is."""

    def require_below(self, path: Path) -> None:
        """Refuse a path that leads out of the folder, in a table that holds images."""

    @property
    def captions_hash(self) -> str | None:
        """The hash of all captions; None if there are none."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One picture and the key of its sample.

    Attributes:
        name: its path below the source's folder, or as a list has it.
        path: where it lies.
        size: its bytes.
        key: of its sample.
        label: its class number, if it has one.
        fault: why it cannot be read, where that is known already.
        mask: its mask, if masks were asked for.
        rows: the table that it is from, if it is from one.
        row: its row there.
    """

    name: str
    path: Path
    size: int
    key: str
    label: int | None
    fault: str | None
    mask: Path | None
    rows: Rows | None
    row: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileColumns:
    """What is known of files, in the order in which they were listed.

    Attributes:
        folder: what the names are below.
        found: names, sizes, kinds and faults.
        keys: gives the key of a name.
        label_n: (n,) class numbers; `NO_LABEL` where a file has none.
        places: where files lie whose names are short for that, by row.
        masks: paths of their masks; None if none were asked for.
        mask_size_n: (n,) bytes of the masks.
        rows: the table that the files are from, in whose order they are listed.
    """

    folder: Path
    found: FoundFiles
    keys: UniqueKeys
    label_n: NDArray[np.int32]
    places: Mapping[int, str] = dataclasses.field(default_factory=dict)
    masks: TextTable | None = None
    mask_size_n: NDArray[np.int64] | None = None
    rows: Rows | None = None

    def file(self, row: int) -> SourceFile:
        """Return one file."""
        name, label = self.found.names[row], int(self.label_n[row])
        return SourceFile(
            name=name,
            path=self.folder / self.places.get(row, name),
            size=self.found.sizes[row],
            key=self.keys.of(name),
            label=None if label == NO_LABEL else label,
            fault=self.found.faults.get(row),
            mask=None if self.masks is None else Path(self.masks[row]),
            rows=self.rows,
            row=row,
        )


class SourceFiles(Sequence[SourceFile]):
    """Some files of a data set, in any order; each is made an object when it is asked for."""

    def __init__(self, columns: FileColumns, row_n: NDArray[np.int64]) -> None:
        self.columns = columns
        self._row_n = row_n

    def __len__(self) -> int:
        return len(self._row_n)

    @overload
    def __getitem__(self, at: int) -> SourceFile: ...
    @overload
    def __getitem__(self, at: slice) -> "SourceFiles": ...
    def __getitem__(self, at: int | slice) -> "SourceFile | SourceFiles":
        if isinstance(at, slice):
            return SourceFiles(self.columns, self._row_n[at])
        return self.columns.file(int(self._row_n[at]))

    def __iter__(self) -> Iterator[SourceFile]:
        return (self.columns.file(row) for row in self._rows())

    def take(self, order_n: NDArray[np.int64]) -> "SourceFiles":
        """Return the files at some places, in that order."""
        return SourceFiles(self.columns, self._row_n[order_n])

    def with_columns(self, columns: FileColumns) -> "SourceFiles":
        """Return the same files with more known of them."""
        return SourceFiles(columns, self._row_n)

    def names(self) -> Iterator[str]:
        """Yield the name of each file."""
        return (self.columns.found.names[row] for row in self._rows())

    def labels(self) -> Iterator[int | None]:
        """Yield the class number of each file."""
        labels = map(int, self.columns.label_n[self._row_n])
        return (None if label == NO_LABEL else label for label in labels)

    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes of each file, (n,)."""
        return np.frombuffer(self.columns.found.sizes, np.int64)[self._row_n]

    def mask_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of each mask, (n,); None without masks."""
        sizes_n = self.columns.mask_size_n
        return None if sizes_n is None else sizes_n[self._row_n]

    @property
    def bytes(self) -> int:
        """The bytes of all files and masks."""
        mask_sizes_n = self.mask_sizes()
        return int(self.sizes().sum() + (0 if mask_sizes_n is None else mask_sizes_n.sum()))

    def unread(self) -> Iterator[str]:
        """Yield the names of pictures that can be read, but are of formats that are not read."""
        found = self.columns.found
        for row in self._rows():
            if found.kind(row) != "image" and row not in found.faults:
                yield found.names[row]

    def _rows(self) -> Iterator[int]:
        return map(int, self._row_n)
