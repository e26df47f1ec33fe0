"""Parquet files of paths of images, or of images themselves, as the Hugging Face hub has them."""

import contextlib
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from milan_pipeline.errors import DataError
from milan_pipeline.images.folder_walk import Ignored
from milan_pipeline.images.tables.arrow_columns import (
    arrow_library,
    features_of,
    layout_of,
    reading,
)
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.spool import Spool
from milan_pipeline.images.tables.table import Row

ROWS, IMAGES = 4096, 16
"""So many rows are in memory at a time: without images, and with them."""


class _Group(NamedTuple):
    """A row group: its file, its number there, and its bytes of images."""

    file: int
    number: int
    bytes: int


class ParquetTable:
    """The rows of one or more Parquet files with the same columns.

    Images in a Parquet file can only be read in order, and are packed in another. So the row groups
    that they lie in are copied to a temporary file, each when its first image is asked for.

    Args:
        files: the files, in order.
        place: what messages call them.
        columns: which columns are used.
        folder: what paths are relative to.

    Raises:
        ConfigError: a column is not there, or pyarrow is not installed.
        DataError: a file cannot be read, or is no Parquet.
    """

    def __init__(self, files: Sequence[Path], place: Path, columns: Columns, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.ignored: list[Ignored] = []
        self._files = files
        self._parquet = arrow_library("pyarrow.parquet", place)
        with self._opened(0) as file:
            schema = file.schema_arrow
        self.layout = layout_of(schema, features_of(schema), columns, files[0])
        self.classes = self.layout.classes
        self.holds_images = self.layout.form != "path"
        self._schema = schema
        self._groups: list[_Group] = []
        self._starts = array("q")
        self._file_starts = array("q")
        self._images = Spool()
        self._at: dict[int, int] = {}
        self._lock = threading.Lock()

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all files; of images, `size` is the mean of their row group."""
        count = 0
        for number in range(len(self._files)):
            with self._opened(number) as file:
                self._require_columns(number, file.schema_arrow)
                self._file_starts.append(count)
                for group in range(file.metadata.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    self._starts.append(count)
                    count += rows
                    yield from self._rows_of(file, number, group, rows)

    def where(self, row: int) -> str:
        """Return the row's number in its file, from 0 as pandas and `datasets` count."""
        number = bisect_right(self._file_starts, row) - 1
        where = f"row {row - self._file_starts[number]}"
        return where if len(self._files) == 1 else f"{where} of {self._files[number].name}"

    def image(self, row: int) -> bytes | None:
        """Return the bytes of an image; None where it lies in a file."""
        if self.layout.form == "path":
            return None
        group = bisect_right(self._starts, row) - 1
        with self._lock:
            if group not in self._at:
                start = len(self._images)
                self._copy(self._groups[group])
                self._at[group] = start  # not before: a copy that failed is made again
        return self._images.read(self._at[group] + row - self._starts[group]) or None

    def _rows_of(self, file: Any, number: int, group: int, rows: int) -> Iterator[Row]:
        image, form = self.layout.image, self.layout.form
        size = None if form == "path" else self._bytes_of(file, group)
        self._groups.append(_Group(number, group, size or 0))
        mean = None if size is None else size // max(1, rows)
        columns = [*self.layout.others, *self._paths()]
        if not columns:
            yield from (Row("", mean) for _ in range(rows))
            return
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
            by_name = {name: batch.column(name).to_pylist() for name in batch.schema.names}
            for at in range(batch.num_rows):
                row = {name: values[at] for name, values in by_name.items()}
                path = row.get(image)
                if form == "struct":
                    path = (path or {}).get("path")
                label, caption, part = (
                    None if name is None else row[name]
                    for name in (self.layout.label, self.layout.caption, self.layout.part)
                )
                yield Row(path or "", mean, label, caption, part=part)

    def _paths(self) -> list[str]:
        if self.layout.form != "struct":
            return [self.layout.image] if self.layout.form == "path" else []
        kind = self._schema.field(self.layout.image).type
        return [f"{self.layout.image}.path"] if kind.get_field_index("path") >= 0 else []

    def _leaf(self) -> str:
        """Return the column of the bytes, as pyarrow names it."""
        image = self.layout.image
        return f"{image}.bytes" if self.layout.form == "struct" else image

    def _bytes_of(self, file: Any, group: int) -> int:
        columns = file.metadata.row_group(group)
        parts = (columns.column(n) for n in range(columns.num_columns))
        return sum(p.total_uncompressed_size for p in parts if p.path_in_schema == self._leaf())

    def _copy(self, group: _Group) -> None:
        with self._opened(group.file) as file:
            batches = file.iter_batches(
                IMAGES, row_groups=[group.number], columns=[self._leaf()], use_threads=False
            )
            for batch in batches:
                for value in batch.column(0).to_pylist():
                    data = value.get("bytes") if isinstance(value, dict) else value
                    self._images.append(data or b"")

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[Any]:
        path = self._files[number]
        with reading(path), self._parquet.ParquetFile(path, pre_buffer=False) as file:
            yield file

    def _require_columns(self, number: int, schema: Any) -> None:
        for name in (self.layout.image, *self.layout.others):
            index = schema.get_field_index(name)
            if index < 0 or schema.field(index).type != self._schema.field(name).type:
                raise DataError(
                    f"{self._files[number]} has not the column {name} of {self._files[0].name}; "
                    "give files with the same columns"
                )
