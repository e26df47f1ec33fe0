"""A table of JSON lines: an object in each line, as `metadata.jsonl` of Hugging Face's folders."""

import itertools
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from milan_pipeline.errors import ConfigError, DataError, reason_of
from milan_pipeline.images.file_faults import shortened
from milan_pipeline.images.folder_walk import Ignored
from milan_pipeline.images.tables.columns import Columns, part_column
from milan_pipeline.images.tables.table import Row

JSONL = (".jsonl", ".ndjson")
LOOKED_AT = 1000
"""Lines that name the columns: one image without a class may be the first."""


class JsonTable:
    """A table whose lines are JSON objects; the keys of the first 1,000 are its columns.

    Args:
        path: the table.
        columns: which columns are used.
        folder: what paths are relative to.

    Raises:
        ConfigError: it is empty, or a column is not there.
        DataError: it cannot be read, or one of these lines is no object.
    """

    def __init__(self, path: Path, columns: Columns, folder: Path) -> None:
        self.place, self.folder = path, folder
        self.classes: list[str] = []
        self.holds_images = False
        self.ignored: list[Ignored] = []
        self._lines = array("q")
        first = itertools.islice(self._records(), LOOKED_AT)
        names = list(dict.fromkeys(key for _, record in first for key in record))
        if not names:
            raise ConfigError(f"{path} is empty; give a table with a JSON object in each line")
        self.image_column = columns.image_of(names, path)
        self.label_column = columns.label_of(names, path)
        self.caption_column = columns.caption_of(names, path)
        used = (self.image_column, self.label_column, self.caption_column)
        self._part_column = part_column(names, used)

    def rows(self) -> Iterator[Row]:
        """Yield the rows; a key that a line lacks has no value there."""
        for line, record in self._records():
            self._lines.append(line)
            path = record.get(self.image_column)
            label, caption, part = (
                None if name is None else record.get(name)
                for name in (self.label_column, self.caption_column, self._part_column)
            )
            if path is not None and not isinstance(path, str):
                yield Row("", fault=f"a row whose {self.image_column} is no path")
            else:
                yield Row(path or "", None, label, caption, part=part)

    def where(self, row: int) -> str:
        """Return the line of a row."""
        return f"line {self._lines[row]}"

    def image(self, row: int) -> None:
        """Return None: images lie in files."""

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines that hold anything: their numbers and objects."""
        number = 0
        try:
            with self.place.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, self._object(number, line)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.place} is not UTF-8 (behind line {number}); save it as UTF-8"
            ) from error
        except OSError as error:
            raise DataError(
                f"{self.place} cannot be read ({reason_of(error)}); give another table"
            ) from error

    def _object(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if "\\ud" in line.lower():  # maybe half of a character, where a caption was cut
                text = json.dumps(record, ensure_ascii=False)
                record = json.loads(text.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise DataError(
                f"{self.place} line {number}: {shortened(line.strip(), 60)!r} is no JSON object; "
                'write one a line, as {"path": "cat/0.jpg", "label": "cat"}'
            )
        return record
