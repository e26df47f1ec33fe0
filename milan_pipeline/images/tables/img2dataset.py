"""What img2dataset downloads: shards of images as tars or folders, each with a Parquet table."""

import contextlib
import logging
import os
import re
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from milan_pipeline import storage
from milan_pipeline.core.counting import are, counted
from milan_pipeline.errors import ConfigError, DataError, reason_of
from milan_pipeline.images.class_tree import some
from milan_pipeline.images.folder_walk import Ignored
from milan_pipeline.images.formats import kind_by_name
from milan_pipeline.images.tables.arrow_columns import arrow_library, reading
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.table import Row

STATS = re.compile(r"(\d{5,})_stats\.json")
OF_SHARD = re.compile(r"\d{5,}(_stats\.json|\.parquet|\.tar|\.tfrecord)?")
TFRECORD = ".tfrecord"
KEY, STATUS, MESSAGE, SUCCESS = "key", "status", "error_message", "success"


logger = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Where an image lies: its name in its shard's tar or folder, and its bytes in a tar."""

    name: str
    start: int = 0
    length: int = -1


def is_img2dataset(folder: Path) -> bool:
    """Tell whether a folder holds shards with tables and statistics, as img2dataset writes them.

    Raises:
        ConfigError: its images are in TFRecord files.
    """
    names = _names(folder)
    if any(STATS.fullmatch(name) for name in names) and any(n.endswith(TFRECORD) for n in names):
        raise ConfigError(
            f"{folder} has TFRecord files of img2dataset, which are not read; download with "
            "--output_format webdataset or files"
        )
    return bool(_shards(names))


class Img2Dataset:
    """The rows of all shards whose download ended, with the texts of their tables.

    An image that was not downloaded is no row, but is listed in `ignored`.

    Args:
        folder: the shards, in either of the formats `webdataset` and `files`.
        columns: the columns of classes and captions in the tables; there is none of images.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: a file of a shard whose download ended is not there.
    """

    def __init__(self, folder: Path, columns: Columns) -> None:
        if columns.image is not None:
            raise ConfigError(
                f"--image-column {columns.image} does not go with {folder}, since img2dataset has "
                "its images in files; leave it out"
            )
        self.place = self.folder = folder
        self.classes: list[str] = []
        self.holds_images = False  # a folder is listed, so that no table names a path
        self.ignored: list[Ignored] = []
        self._columns = columns
        names = _names(folder)
        self._shards = _shards(names)
        _require_whole(folder, self._shards, names)
        self._parquet = arrow_library("pyarrow.parquet", folder)
        self._shard_starts = array("q")
        self._start, self._length = array("q"), array("q")

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all shards."""
        self._note_unfinished()
        for shard in self._shards:
            self._shard_starts.append(len(self._start))
            tar = self.folder / f"{shard}.tar"
            places = _in_tar(tar) if tar.exists() else _in_folder(self.folder / shard)
            yield from self._rows_of(shard, places)
            rest = [f"{shard}/{place.name}" for place in places.values()]
            self.ignored += [{"file": name, "reason": "no row of its table"} for name in rest]

    def where(self, row: int) -> str:
        """Return the shard of a row, whose name has its key."""
        return f"shard {self._shards[bisect_right(self._shard_starts, row) - 1]}"

    def image(self, row: int) -> bytes | None:
        """Read an image of a tar."""
        if self._length[row] < 0:
            return None
        shard = self._shards[bisect_right(self._shard_starts, row) - 1]
        tar = str(self.folder / f"{shard}.tar")
        return storage.read_bytes(tar, self._start[row], self._length[row])

    def _rows_of(self, shard: str, places: dict[str, _Place]) -> Iterator[Row]:
        """Yield the rows of a shard's table, and take their places out."""
        path = self.folder / f"{shard}.parquet"
        with reading(path), self._parquet.ParquetFile(path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if not {KEY, STATUS} <= set(names):
                raise DataError(f"{path} has no columns {KEY} and {STATUS}; download it again")
            label = self._columns.label_of(names, path)
            caption = self._columns.caption_of(names, path)
            wanted = [n for n in names if n in (KEY, STATUS, MESSAGE, label, caption)]
            rows = file.read(columns=wanted).to_pylist()
        for row in sorted(rows, key=lambda row: str(row[KEY])):  # they are in the order of arrival
            key = str(row[KEY])
            if row[STATUS] != SUCCESS:
                self._note_failed(shard, key, row)
                continue
            place = places.pop(key, None)
            fault = None if place is not None else "in its table, but not in its shard"
            name, start, length = place or _Place(key)
            self._start.append(start)
            self._length.append(length)
            size = None if length < 0 else length
            texts = [None if column is None else row[column] for column in (label, caption)]
            yield Row(f"{shard}/{name}", size, texts[0], texts[1], fault)

    def _note_failed(self, shard: str, key: str, row: dict[str, object]) -> None:
        why = row.get(MESSAGE) or row[STATUS]
        self.ignored.append({"file": f"{shard}/{key}", "reason": f"not downloaded ({why})"})

    def _note_unfinished(self) -> None:
        """List the shards without statistics, which are written last."""
        unfinished = []
        for name in sorted(os.listdir(self.folder)):  # noqa: PTH208
            shard, _, ending = name.partition(".")
            if shard.isdecimal() and ending in ("", "tar") and shard not in self._shards:
                reason = f"a shard whose download has not ended: there is no {shard}_stats.json"
                self.ignored.append({"file": name, "reason": reason})
                unfinished.append(name)
        if unfinished:
            logger.warning(
                "%s of %s %s left out, since their download has not ended (%s)",
                *(counted(len(unfinished), "shards"), self.folder, are(len(unfinished))),
                some(unfinished),
            )


def _names(folder: Path) -> set[str]:
    """Return the names of shards and of what belongs to them."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return {entry.name for entry in entries if OF_SHARD.fullmatch(entry.name)}
    return set()


def _shards(names: set[str]) -> list[str]:
    """Return the shards whose download ended, in order; none if no shard has all its files."""
    ended = sorted(match[1] for name in names if (match := STATS.fullmatch(name)))
    return ended if any(not _lost(shard, names) for shard in ended) else []


def _lost(shard: str, names: set[str]) -> list[str]:
    """Return which files of a shard are not there."""
    lost = [] if f"{shard}.parquet" in names else [f"{shard}.parquet"]
    return lost if {shard, f"{shard}.tar"} & names else [*lost, f"{shard}.tar"]


def _require_whole(folder: Path, shards: list[str], names: set[str]) -> None:
    """Refuse a shard that has lost a file, and with it images or what is known of them."""
    for shard in shards:
        if lost := _lost(shard, names):
            raise DataError(
                f"{folder} has {shard}_stats.json, but no {lost[0]}; download the shard again, or "
                f"delete {shard}_stats.json to leave it out"
            )


def _in_tar(path: Path) -> dict[str, _Place]:
    """Return the images of a tar by their keys; only headers are read.

    Raises:
        DataError: it is damaged.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            return {
                member.name.partition(".")[0]: _Place(member.name, member.offset_data, member.size)
                for member in tar
                if member.isreg() and kind_by_name(member.name) != "none"
            }
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path} is damaged or truncated ({reason_of(error)}); download it again"
        ) from error


def _in_folder(folder: Path) -> dict[str, _Place]:
    names = sorted(os.listdir(folder))  # noqa: PTH208
    return {n.partition(".")[0]: _Place(n) for n in names if kind_by_name(n) != "none"}
