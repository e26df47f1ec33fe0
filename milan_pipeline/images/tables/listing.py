"""A table's rows -> a source to pack: names, classes, captions, and what is wrong with each row."""

import logging
import os
import re
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline.core.text_table import TextTable
from milan_pipeline.errors import BadImageError, ConfigError, DataError, StorageError, reason_of
from milan_pipeline.images.class_labels import class_numbers
from milan_pipeline.images.class_tree import PARTS
from milan_pipeline.images.file_faults import fault_of, is_link, shortened
from milan_pipeline.images.found_files import Found, FoundFiles
from milan_pipeline.images.keys import UniqueKeys
from milan_pipeline.images.source_files import NO_LABEL, FileColumns, SourceFiles
from milan_pipeline.images.sources import Source
from milan_pipeline.images.spelling import NO_UTF8, require_distinct
from milan_pipeline.images.tables.remedies import URL, remedy_of
from milan_pipeline.images.tables.spool import Spool
from milan_pipeline.images.tables.table import Table
from milan_pipeline.storage.retries import retried

logger = logging.getLogger(__name__)

WHOLE = re.compile(r"(\d+)\.0+")
"""A class number as pandas writes it where other rows have none."""
NO_FILE = "a path without a file"
IN_FILE = -1


class TableRows:
    """What a table has of its images beside their names: bytes and captions."""

    def __init__(self, table: Table, captions: Spool) -> None:
        self._table = table
        self._captions = captions

    def image(self, row: int) -> bytes | None:
        """Return the bytes of an image that the table holds; None if it lies in a file."""
        return self._table.image(row)

    def caption(self, row: int) -> bytes:
        """Return a row's caption in UTF-8; empty if it has none."""
        return self._captions.read(row) if len(self._captions) else b""

    def where(self, row: int) -> str:
        """Say which row it is."""
        return self._table.where(row)

    def require_below(self, path: Path) -> None:
        """Refuse a path that leads out of the folder, in a table that holds images.

        Such tables are passed on with their images, and a path in them is one of another machine,
        or asks for a file that nobody meant to pack. A list of paths is the user's own.

        Raises:
            BadImageError: it leads out.
        """
        folder = self._table.folder
        is_below = any(
            path.is_relative_to(root) and ".." not in path.relative_to(root).parts
            for root in (folder, folder.absolute())
        )
        if self._table.holds_images and not is_below:
            raise BadImageError(
                f"it is a row without an image, whose path {shortened(str(path), 200)} leads out "
                f"of {folder}; if you trust it, give the folder that it is below by --image-folder"
            )

    @property
    def captions_hash(self) -> str | None:
        """The hash of all captions; None if there are none."""
        return self._captions.hash if len(self._captions) else None


class _Read:
    """The columns of a table as its rows come: bytes and numbers, not objects."""

    def __init__(self) -> None:
        self.paths = TextTable()
        self.sizes = array("q")
        self.labels = array("q")
        self.first_of: dict[str, int] = {}
        self.faults: dict[int, str] = {}
        self.captions = Spool()
        self.parts: set[str] = set()

    def read(self, table: Table) -> None:
        numbers: dict[str, int] = {}
        for number, row in enumerate(table.rows()):
            label = _label_text(row.label)
            if isinstance(row.label, list | dict | bytes):
                raise DataError(
                    f"{table.place} {table.where(number)}: {shortened(label)} is no class; give "
                    "another column of classes, or none, by --label-column"
                )
            self.first_of.setdefault(label, number)
            self.labels.append(numbers.setdefault(label, len(numbers)))
            self.paths.append(row.path)
            self.sizes.append(IN_FILE if row.size is None else row.size)
            if isinstance(row.part, str) and (part := row.part.strip()).lower() in PARTS:
                self.parts.add(part)
            if row.fault is not None:
                self.faults[number] = row.fault
            elif row.size is None and not row.path.strip():
                self.faults[number] = "a row without an image"
            caption = _caption_bytes(row.caption)
            if caption or len(self.captions):
                while len(self.captions) < number:  # of the rows before the first that has one
                    self.captions.append(b"")
                self.captions.append(caption)


def source_of(table: Table) -> Source:
    """Read a table.

    Raises:
        ConfigError: it lists nothing, or no file that exists.
        DataError: a label is no class.
        StorageError: a file cannot be looked at, or the disk for temporary files is full.
    """
    read = _Read()
    read.read(table)
    if not len(read.paths):
        raise ConfigError(f"{table.place} has no row with an image; give another table")
    if len(read.parts) > 1:
        logger.warning(
            "%s has images of %s in one table, which are packed together; write a table for each",
            *(table.place, " and ".join(sorted(read.parts))),
        )
    numbers, classes = _classes(read, table)
    first_n = _first_of_each(read)
    found = FoundFiles(_found(read, table, first_n))
    _require_files(found, read, table)
    number_n = np.array([numbers[label] for label in read.first_of], np.int32)
    columns = FileColumns(
        folder=table.folder,
        found=found,
        keys=UniqueKeys(found.names),
        label_n=number_n[np.frombuffer(read.labels, np.int64)],
        places=_in_homes(read.paths),
        rows=TableRows(table, read.captions),
    )
    files = SourceFiles(columns, np.arange(len(found)))
    return Source(files=files, classes=classes, ignored=table.ignored, stray=[], is_listed=True)


def _label_text(value: object) -> str:
    """Return a label as text; empty where there is none."""
    if _is_missing(value):
        return ""
    text = str(int(value) if isinstance(value, bool) else value).strip()
    whole = WHOLE.fullmatch(text)
    text = text if whole is None else whole[1]
    return "" if text in ("-1", "-1.0") else text


def _is_missing(value: object) -> bool:
    return value is None or value != value  # noqa: PLR0124 - what pandas has for nothing, NaN


def _caption_bytes(value: object) -> bytes:
    texts = value if isinstance(value, list) else [value]
    text = "\n".join(str(one) for one in texts if not _is_missing(one))
    return text.encode("utf-8", "surrogateescape")


def _classes(read: _Read, table: Table) -> tuple[dict[str, int], list[str]]:
    """Return the class number of each label, and the names of the classes."""

    def error(label: str, what: str, remedy: str) -> DataError:
        where = table.where(read.first_of[label])
        return DataError(f"{table.place} {where}: '{shortened(label)}' {what}; {remedy}")

    require_distinct(table.classes, table.place)
    labels = [label for label in read.first_of if label]
    if not table.classes:
        numbers, classes = class_numbers(labels, table.place, error)
        return numbers | {"": NO_LABEL}, classes
    for label in labels:
        if not label.isdecimal() or int(label) >= len(table.classes):
            most = len(table.classes) - 1
            raise error(label, "is no class number", f"its classes are numbered 0 to {most}")
    return {label: int(label or NO_LABEL) for label in read.first_of}, table.classes


def _in_homes(paths: TextTable) -> dict[int, str]:
    """Return where files lie whose paths begin with ~, by row."""
    return {
        row: os.path.expanduser(path)  # noqa: PTH111 - `Path` fails for no such user
        for row, path in enumerate(paths)
        if path.startswith("~")
    }


def _first_of_each(read: _Read) -> NDArray[np.int64]:
    """Return for each row the first one with the same path; itself where it has no path."""
    hashes = (
        xxhash.xxh3_64_intdigest(os.fsencode(os.path.normpath(path)) if path else b"\0%d" % row)
        for row, path in enumerate(read.paths)
    )
    hash_n = np.fromiter(hashes, np.uint64, count=len(read.paths))
    _, first, inverse_n = np.unique(hash_n, return_index=True, return_inverse=True)
    return first[inverse_n]


def _found(read: _Read, table: Table, first_n: NDArray[np.int64]) -> Iterator[Found]:
    for row, path in enumerate(read.paths):
        size, fault, first = read.sizes[row], read.faults.get(row), int(first_n[row])
        name = path
        if first != row or not path:
            stem, ending = os.path.splitext(path)  # noqa: PTH122
            name = f"{stem}-{row:09d}{ending}" if path else f"{row:09d}"
        if size == IN_FILE and fault is None and first != row:
            other = read.labels[first] != read.labels[row]
            fault = f"an image that {table.where(first)} has, too"
            fault += ", in another class" if other else ""
        if size == IN_FILE and fault is None:
            size, fault = _look_at(table.folder, path)
        if fault == NO_FILE and NO_UTF8.search(path):
            raise DataError(
                f"{table.place} {table.where(row)}: no file is called '{shortened(path)}', and "
                "that is not UTF-8; save the table in UTF-8"
            )
        yield Found(name, max(size, 0), "image", fault)


def _look_at(folder: Path, path: str) -> tuple[int, str | None]:
    """Return the size of a file and what is wrong with it."""
    place = os.path.join(folder, os.path.expanduser(path))  # noqa: PTH111, PTH118 - of a million
    try:
        status = retried(lambda: os.stat(place), url=place, local=True)  # noqa: PTH116
    except StorageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        return 0, fault_of(place, error) if is_link(place) else NO_FILE
    except ValueError:
        return 0, "a path with a NUL, which no file can have"
    except OSError as error:
        return 0, f"a path that cannot be reached ({reason_of(error)})"
    if not stat.S_ISREG(status.st_mode):
        return 0, "a folder" if stat.S_ISDIR(status.st_mode) else "neither a file nor a folder"
    return status.st_size, None


def _require_files(found: FoundFiles, read: _Read, table: Table) -> None:
    """Refuse a table none of whose files is there: its paths are relative to something else.

    Raises:
        ConfigError: none is there.
    """
    missing = [row for row, fault in found.faults.items() if fault == NO_FILE]
    if missing and len(found.faults) == len(found):
        path = read.paths[missing[0]]
        place = path if URL in path else str(table.folder / path)
        raise ConfigError(
            f"no file that {table.place} lists is there ({shortened(place, 200)}, …); "
            f"{remedy_of(table.folder, path)}"
        )
