"""A data set that Hugging Face `datasets` saved on disk: Arrow files with images in them."""

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, DataError, reason_of
from milan_pipeline.images.folder_walk import Ignored
from milan_pipeline.images.tables.arrow_columns import (
    Features,
    Layout,
    arrow_library,
    as_features,
    features_of,
    layout_of,
    reading,
)
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.table import Row

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
FILE_MAGIC = b"ARROW1"


def is_saved(folder: Path) -> bool:
    """Tell whether a folder is what `save_to_disk` makes, of a data set or of its splits.

    Raises:
        ConfigError: it has several splits.
        DataError: it has Arrow files, but not both of the files beside them.
    """
    if (folder / SPLITS).is_file():
        splits = _json(folder / SPLITS).get("splits") or ["SPLIT"]
        raise ConfigError(
            f"{folder} has the splits {', '.join(map(str, splits))}; give one, such as "
            f"{folder / str(splits[0])}"
        )
    lost = [name for name in (STATE, INFO) if not (folder / name).is_file()]
    if len(lost) == 1 and any(folder.glob("*.arrow")):  # as the cache of `datasets` is, too
        raise DataError(
            f"{folder} has Arrow files of `datasets`, but no {lost[0]}; open the data set and save "
            "it by `save_to_disk`"
        )
    return not lost


class ArrowTable:
    """The rows of a data set saved on disk. Its images are not copied, and not kept in memory.

    Args:
        folder: as `save_to_disk` made it.
        columns: which columns are used.
        below: what paths are relative to; None is the folder itself.

    Raises:
        ConfigError: a column is not there, or pyarrow is not installed.
        DataError: a file cannot be read, or is no Arrow.
    """

    def __init__(self, folder: Path, columns: Columns, below: Path | None = None) -> None:
        self.place, self.folder = folder, folder if below is None else below
        self.ignored: list[Ignored] = []
        self._arrow = arrow_library("pyarrow", folder)
        self._files = _data_files(folder)
        features = as_features(_json(folder / INFO).get("features"))
        self.layout = self._layout(features, columns)
        self.classes = self.layout.classes
        self.holds_images = self.layout.form != "path"
        self._file, self._start, self._length = array("i"), array("q"), array("q")

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all files."""
        for number, path in enumerate(self._files):
            with reading(path):
                buffer, reader = self._opened(path)
                for batch in _batches(reader):
                    paths, start_n, length_n = self._images_of(batch, buffer, path)
                    self._file.extend([number] * len(paths))
                    self._start.extend(start_n.tolist())
                    self._length.extend(length_n.tolist())
                    yield from self._rows_of(batch, paths, length_n)

    def where(self, row: int) -> str:
        """Return the row's number, as `datasets` counts."""
        return f"row {row}"

    def image(self, row: int) -> bytes | None:
        """Read the bytes of an image."""
        if self._length[row] < 0:
            return None
        path = str(self._files[self._file[row]])
        return storage.read_bytes(path, self._start[row], self._length[row])

    def _rows_of(
        self, batch: Any, paths: Sequence[str | None], length_n: NDArray[np.int64]
    ) -> Iterator[Row]:
        nothing = [None] * len(paths)
        labels, captions, parts = (
            nothing if name is None else batch.column(name).to_pylist()
            for name in (self.layout.label, self.layout.caption, self.layout.part)
        )
        rows = zip(paths, length_n.tolist(), labels, captions, parts, strict=True)
        for path, length, label, caption, part in rows:
            yield Row(path or "", None if length < 0 else length, label, caption, part=part)

    def _images_of(
        self, batch: Any, buffer: Any, path: Path
    ) -> tuple[list[str | None], NDArray[np.int64], NDArray[np.int64]]:
        """Return the paths of a batch, and where its images begin and how long they are."""
        column = batch.column(self.layout.image)
        if self.layout.form == "path":
            none_n = np.full(len(column), -1)
            return column.to_pylist(), none_n, none_n
        paths: list[str | None] = [None] * len(column)
        if self.layout.form == "struct":
            if column.type.get_field_index("path") >= 0:
                paths = column.field("path").to_pylist()
            column = column.field("bytes")
        return paths, *_places(column, buffer, path)

    def _layout(self, features: Features, columns: Columns) -> Layout:
        with reading(self._files[0]):
            schema = self._opened(self._files[0])[1].schema
        return layout_of(schema, features or features_of(schema), columns, self.place)

    def _opened(self, path: Path) -> tuple[Any, Any]:
        """Map a file into memory; return its bytes and what reads it."""
        with self._arrow.memory_map(str(path)) as file:
            buffer = file.read_buffer()
        is_file = buffer[: len(FILE_MAGIC)].to_pybytes() == FILE_MAGIC
        return buffer, (self._arrow.ipc.open_file if is_file else self._arrow.ipc.open_stream)(
            buffer
        )


def _batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _places(data: Any, buffer: Any, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the images of a batch begin in their file and how long they are, -1 for none.

    The bytes of a file that is mapped into memory lie at its place there.

    Raises:
        DataError: they do not lie in the file, since it is compressed or damaged.
    """
    _, ends, values = data.buffers()
    width = np.int64 if str(data.type).startswith("large") else np.int32
    end_n = np.frombuffer(ends, width)[data.offset : data.offset + len(data) + 1].astype(np.int64)
    length_n = np.diff(end_n)
    start_n = end_n[:-1] + (0 if values is None else values.address - buffer.address)
    is_valid_n = data.is_valid().to_numpy(zero_copy_only=False)
    is_inside_n = (start_n >= 0) & (length_n >= 0) & (start_n + length_n <= buffer.size)
    if not is_inside_n[is_valid_n].all():
        raise DataError(
            f"{path} is compressed or damaged, so that its images have no place of their own; "
            "save the data set again by `save_to_disk`"
        )
    return start_n, np.where(is_valid_n, length_n, -1)


def _data_files(folder: Path) -> list[Path]:
    state = _json(folder / STATE)
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder} takes rows of its files by a table of indices, as old versions of "
            "`datasets` wrote it; save it again"
        )
    rows = state.get("_data_files")
    names = [row.get("filename") for row in rows] if isinstance(rows, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / STATE} names no files; save the data set again")
    return [folder / Path(name).name for name in names]


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({reason_of(error)}); save the data set again"
        ) from error
    return document if isinstance(document, dict) else {}
