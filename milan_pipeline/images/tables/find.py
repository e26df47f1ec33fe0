"""Which form a source has: a table of one of several forms, or a folder or list of files."""

import contextlib
import logging
import os
import re
from pathlib import Path

from milan_pipeline.core.console import NOTE
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.class_tree import PARTS
from milan_pipeline.images.sources import Source, find_source, is_folder
from milan_pipeline.images.tables.arrow_table import ArrowTable, is_saved
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.csv_table import CSV, TSV, CsvTable, names_columns
from milan_pipeline.images.tables.img2dataset import Img2Dataset, is_img2dataset
from milan_pipeline.images.tables.json_table import JSONL, JsonTable
from milan_pipeline.images.tables.listing import source_of
from milan_pipeline.images.tables.parquet_table import ParquetTable
from milan_pipeline.images.tables.table import Table

logger = logging.getLogger(__name__)

PARQUET = ".parquet"
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "labels.csv")
"""Tables beside images, by the names that `datasets` and others give them."""


def find_images(
    path: Path,
    *,
    columns: Columns,
    folder: Path | None = None,
    masks: Path | None = None,
    leave_out: tuple[Path, ...] = (),
) -> Source:
    """List a dataset of any form.

    Args:
        path: a folder or list of files, as `find_source` takes them; a table (CSV, TSV, JSON lines
            or Parquet); a pattern of Parquet files; or a folder of them, of what `datasets` saved,
            or of what img2dataset downloaded.
        columns: which columns of a table are used.
        folder: what the paths of a table are relative to; None is the table's own folder.
        masks: folder of the masks; see `find_source`.
        leave_out: folders that are no part of it.

    Raises:
        ConfigError: an option does not go with the form, or the data has several splits.
        DataError: a table cannot be read.
        MissingDataError: an image has no mask.
        StorageError: a folder cannot be listed.
    """
    table = table_of(path, columns, folder)
    if table is None:
        if columns != Columns() or folder is not None:
            what = "folder" if is_folder(path) else "list"
            raise ConfigError(
                f"--image-folder and options of columns are for tables, but {path} is a {what} of "
                "files; leave them out"
            )
        source = find_source(path, masks=masks, leave_out=leave_out)
        if not source.classes and not source.is_listed:
            _warn_of_metadata(path)
        return source
    if masks is not None:
        raise ConfigError(
            f"--masks {masks} does not go with the table {path}; give a folder, or a list with a "
            "path in each line"
        )
    return source_of(table)


def table_of(path: Path, columns: Columns, folder: Path | None) -> Table | None:
    """Open a table, whose rows are not read yet; None if the path is a folder or list of files."""
    below = path.parent if folder is None else folder
    kind = _text_table(path, is_asked=columns != Columns() or folder is not None)
    if kind is not None:
        table = kind(path, columns, below)
        _say_columns(path, table.image_column, table.label_column, table.caption_column)
        return table
    if files := _parquet_files(path):
        parquet = ParquetTable(files, path, columns, files[0].parent if folder is None else folder)
        layout = parquet.layout
        _say_columns(path, layout.image, layout.label, layout.caption)
        return parquet
    if not os.path.isdir(path):  # noqa: PTH112 - raises nothing
        return None
    if is_saved(path):
        saved = ArrowTable(path, columns, folder)
        _say_columns(path, saved.layout.image, saved.layout.label, saved.layout.caption)
        return saved
    if not is_img2dataset(path):
        return None
    if folder is not None:
        raise ConfigError(
            f"--image-folder {folder} does not go with {path}, since img2dataset has its images "
            "there; leave it out"
        )
    return Img2Dataset(path, columns)


def _warn_of_metadata(folder: Path) -> None:
    """Say so where a folder without classes has a table of them, as `datasets` has it there."""
    for name in METADATA:
        if os.path.isfile(folder / name):  # noqa: PTH113 - raises nothing
            logger.warning(
                "%s is not read; to pack the classes and captions that it has, give it as SOURCE",
                folder / name,
            )


def _text_table(path: Path, *, is_asked: bool) -> type[CsvTable | JsonTable] | None:
    """Return the kind of a table of text; one in `.tsv` may also be a list, which has no head."""
    ending = path.suffix.lower()
    if ending not in (CSV, TSV, *JSONL) or not os.path.isfile(path):  # noqa: PTH113 - raises nothing
        return None
    if ending in JSONL:
        return JsonTable
    return CsvTable if ending == CSV or is_asked or names_columns(path) else None


def _parquet_files(path: Path) -> list[Path]:
    """Return the Parquet files that a path names: one, those of a pattern, or those of a folder.

    Raises:
        ConfigError: a folder has files of several splits, or no file matches a pattern.
    """
    if path.suffix.lower() == PARQUET:
        if os.path.isfile(path):  # noqa: PTH113 - raises nothing
            return [path]
        is_pattern = any(sign in path.name for sign in "*?[")
        files = sorted(path.parent.glob(path.name)) if is_pattern else []
        if is_pattern and not files:
            raise ConfigError(f"no file matches the pattern {path}; give another")
        return files
    names, has_folders = _parquet_names(path)
    if not names or has_folders or is_img2dataset(path):
        return []
    files = [path / name for name in sorted(names)]
    splits = sorted({_first_word(file.name) for file in files} & PARTS)
    if len(splits) > 1:
        raise ConfigError(
            f"{path} has Parquet files of the splits {', '.join(splits)}; give one, such as "
            f"'{path}/{splits[0]}*.parquet'"
        )
    return files


def _parquet_names(folder: Path) -> tuple[list[str], bool]:
    """Return the Parquet files in a folder, and whether it has folders that are not hidden.

    A folder of a million images is gone through entry by entry; one that cannot be listed has none,
    and whoever walks it says why.
    """
    names, has_folders = [], False
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                has_folders = has_folders or entry.is_dir()
                names += [entry.name] if entry.name.lower().endswith(PARQUET) else []
    return names, has_folders


def _first_word(name: str) -> str:
    return re.split(r"[-_.]", name.lower())[0]


def _say_columns(path: Path, image: str, label: str | None, caption: str | None) -> None:
    logger.log(
        NOTE,
        "%s: images of the column %s, classes of %s, captions of %s",
        *(path, image, label or "none", caption or "none"),
    )
