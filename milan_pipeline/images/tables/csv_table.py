"""A CSV table of paths, classes and captions, as spreadsheets and pandas write them."""

import contextlib
import csv
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

from milan_pipeline.errors import ConfigError, DataError, reason_of
from milan_pipeline.images.file_faults import shortened
from milan_pipeline.images.folder_walk import Ignored
from milan_pipeline.images.spelling import NO_UTF8
from milan_pipeline.images.tables.columns import IMAGES, Columns, part_column
from milan_pipeline.images.tables.table import Row

CSV, TSV = ".csv", ".tsv"
DELIMITERS = (",", ";", "\t")
SEPARATOR = re.compile(r'"?sep=.?"?\s*')
"""A first line that tells Excel the separator; it names no column."""
MOST_CHARACTERS = 1 << 24
"""Of a field; a quote that is never closed would take up the rest of the table."""


def names_columns(path: Path) -> bool:
    """Tell whether a file's first line names a column of images, as that of a table does."""
    head = ""
    with contextlib.suppress(OSError), path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline(MOST_CHARACTERS)
    return any(name.strip(' "\n').lower() in IMAGES for name in head.split("\t"))


class CsvTable:
    """A table whose first line names its columns, separated by commas, semicolons or tabs.

    Args:
        path: the table.
        columns: which columns are used.
        folder: what paths are relative to.

    Raises:
        ConfigError: it is empty, or a column is not there.
        DataError: it cannot be read, or is no text.
    """

    def __init__(self, path: Path, columns: Columns, folder: Path) -> None:
        self.place, self.folder = path, folder
        self.classes: list[str] = []
        self.holds_images = False
        self.ignored: list[Ignored] = []
        self._lines = array("q")
        self._names = next((fields for _, fields in self._records()), [])
        if not self._names:
            raise ConfigError(f"{path} is empty; give a table whose first line names its columns")
        self.image_column = columns.image_of(self._names, path)
        self.label_column = columns.label_of(self._names, path)
        self.caption_column = columns.caption_of(self._names, path)
        used = (self.image_column, self.label_column, self.caption_column)
        self._part_column = part_column(self._names, used)

    def rows(self) -> Iterator[Row]:
        """Yield the rows; one of more or fewer fields than there are columns is faulty.

        Raises:
            DataError: a class or a caption is not UTF-8.
        """
        records = self._records()
        next(records)
        for line, fields in records:
            self._lines.append(line)
            if len(fields) != len(self._names):
                yield Row("", fault=f"a row of {len(fields)} fields, not {len(self._names)}")
                continue
            by_name = dict(zip(self._names, fields, strict=True))
            caption = None if self.caption_column is None else by_name[self.caption_column]
            label = "" if self.label_column is None else by_name[self.label_column]
            for text in (label, caption or ""):
                if NO_UTF8.search(text):
                    raise DataError(
                        f"{self.place} line {line}: '{shortened(text)}' is not UTF-8; save the "
                        "table as CSV in UTF-8"
                    )
            part = None if self._part_column is None else by_name[self._part_column]
            yield Row(by_name[self.image_column], None, label, caption, part=part)

    def where(self, row: int) -> str:
        """Return the line that a row begins in."""
        return f"line {self._lines[row]}"

    def image(self, row: int) -> None:
        """Return None: images lie in files."""

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield lines that hold anything: the number of the first, and the fields."""
        csv.field_size_limit(MOST_CHARACTERS)
        start = first = 1
        try:
            with self.place.open(
                newline="", encoding="utf-8-sig", errors="surrogateescape"
            ) as file:
                head = file.readline(MOST_CHARACTERS)
                if "\0" in head:
                    raise csv.Error("its first line holds zeros")
                at = 0
                if SEPARATOR.fullmatch(head):
                    start, first, at = 2, 2, file.tell()
                    head = file.readline(MOST_CHARACTERS)
                file.seek(at)
                is_tsv = self.place.suffix.lower() == TSV
                delimiter = "\t" if is_tsv else max(DELIMITERS, key=head.count)
                reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
                for fields in reader:
                    if any(field.strip() for field in fields):
                        yield start, fields
                    start = reader.line_num + first
        except csv.Error as error:
            raise DataError(
                f"{self.place} is no CSV table in UTF-8 ({reason_of(error)}, from line {start} "
                "on); save it as one, with each quote closed"
            ) from error
        except OSError as error:
            raise DataError(
                f"{self.place} cannot be read ({reason_of(error)}); give another table"
            ) from error
