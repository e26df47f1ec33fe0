"""Which files make up a dataset: a class-folder tree, a flat folder, or a list file."""

import dataclasses
import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from milan_pipeline.core.text_table import TextTable
from milan_pipeline.errors import ConfigError, StorageError
from milan_pipeline.images.file_faults import fault_of, is_link, shortened
from milan_pipeline.images.folder_walk import Ignored, Walk, walk_folder
from milan_pipeline.images.formats import IMAGE_EXTENSIONS
from milan_pipeline.images.found_files import FoundFiles
from milan_pipeline.images.keys import UniqueKeys
from milan_pipeline.images.lists import read_list
from milan_pipeline.images.mask_files import MaskFolder
from milan_pipeline.images.source_files import NO_LABEL, FileColumns, SourceFiles
from milan_pipeline.images.spelling import require_distinct
from milan_pipeline.storage.retries import retried

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip", ".7z", ".rar", ".parquet")
BESIDE_CLASSES = "a picture beside the class folders, of a format that is not read"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset's files in order, its class names, and what was left out.

    `stray` names the images that lie beside sub-folders with images, and so make it no class tree;
    `others` the folders beside class folders that hold files, but no picture; `is_listed` says that
    a list or table names the files, not a folder.
    """

    files: SourceFiles
    classes: list[str]
    ignored: list[Ignored]
    stray: list[str]
    others: list[str] = dataclasses.field(default_factory=list)
    is_listed: bool = False

    def fingerprint(self) -> str:
        """Say what the files are, by hashes of their names, sizes and classes, never of times.

        It stays the same for a copy, and shows what differs in another dataset.
        """
        files, sizes_n, mask_sizes_n = self.files, self.files.sizes(), self.files.mask_sizes()
        parts = {
            "names": _hash(files.names()),
            "sizes": _hash(map(str, sizes_n)),
            "classes": _hash(itertools.chain(self.classes, map(str, files.labels()))),
        }
        if mask_sizes_n is not None:
            parts["sizes of masks"] = _hash(map(str, mask_sizes_n))
        rows = files.columns.rows
        if rows is not None and rows.captions_hash is not None:
            parts["captions"] = rows.captions_hash
        hashes = ", ".join(f"{what} {value}" for what, value in parts.items())
        size = int(sizes_n.sum())
        return f"{len(self.files)} images of {size} bytes ({hashes})"


def find_source(
    path: Path, *, masks: Path | None = None, leave_out: tuple[Path, ...] = ()
) -> Source:
    """List a dataset.

    A folder whose images all lie in sub-folders is a class tree: the first folder level is the
    class, numbered in sorted order; an empty folder is a class without images. Any other folder is
    flat (sub-folders included) and has no classes. A file is a list: one path a line, relative to
    the list, then optionally a tab and a class, by number or name.

    Args:
        path: the folder or list.
        masks: folder of the masks, which have the images' paths but end in `.png`; it may be the
            images' own.
        leave_out: folders that are no part of it, wherever they lie.

    Raises:
        ConfigError: there is no such file or folder, or no image in it.
        DataError: a line of a list cannot be used, an image would be its own mask, or the names of
            two classes look alike.
        MissingDataError: an image has no mask, or a link leads nowhere.
        StorageError: a folder cannot be listed.
    """
    is_tree = is_folder(path)
    root = path if is_tree else path.parent
    mask_folder = None if masks is None else MaskFolder(masks, root)
    if is_tree:
        passed = leave_out if masks is None else (*leave_out, masks)
        walk = walk_folder(path, leave_out=passed)
        files = walk.files if mask_folder is None else mask_folder.images_among(walk.files)
        source = _from_folder(path, files, walk)
    else:
        source = _from_list(path)
    if mask_folder is None:
        return source
    source = _with_masks(source, root, mask_folder)
    if is_tree:
        mask_folder.warn_of_others(source.files.columns.masks or ())
    return source


def shuffled(files: SourceFiles, seed: int) -> SourceFiles:
    """Return the files in an order that depends on nothing but their number and the seed."""
    return files.take(np.random.Generator(np.random.PCG64(seed)).permutation(len(files)))


def is_folder(path: Path) -> bool:
    """Tell a folder from a list.

    Raises:
        ConfigError: it is neither.
        StorageError: the disk does not answer.
    """
    short = shortened(str(path))
    try:
        mode = retried(path.stat, url=str(path), local=True).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"is {fault_of(str(path), error)}" if is_link(path) else "does not exist"
        raise ConfigError(f"{short} {what}; give a folder or a list file") from error
    except StorageError:
        raise
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"{short} cannot be reached ({reason}); give a folder or a list file that can"
        ) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise ConfigError(f"{short} is neither a folder nor a list file; give one of them")
    return stat.S_ISDIR(mode)


def _from_folder(root: Path, found: FoundFiles, walk: Walk) -> Source:
    is_image_n = np.array([found.kind(row) == "image" for row in range(len(found))], np.bool_)
    is_below_n = np.array(["/" in name for name in found.names], np.bool_)
    if not is_image_n.any():
        raise ConfigError(_no_image(root, found, [row["file"] for row in walk.ignored]))
    beside = np.flatnonzero(is_image_n & ~is_below_n)
    is_tree, is_flat = not len(beside), not (is_image_n & is_below_n).any()
    stray = [] if is_tree or is_flat else [found.names[row] for row in beside]
    if not is_tree:
        label_n, row_n = np.full(len(found), NO_LABEL, np.int32), np.arange(len(found))
        columns = FileColumns(
            folder=root, found=found, keys=UniqueKeys(found.names), label_n=label_n
        )
        return Source(
            files=SourceFiles(columns, row_n), classes=[], ignored=walk.ignored, stray=stray
        )
    rows: list[Ignored] = [
        {"file": found.names[row], "reason": BESIDE_CLASSES} for row in np.flatnonzero(~is_below_n)
    ]
    ignored = sorted([*walk.ignored, *rows], key=lambda row: row["file"].split("/"))
    row_n = np.flatnonzero(is_below_n)
    classes = sorted({*(_top(found.names[row]) for row in row_n), *walk.empty})
    require_distinct(classes, root)
    number = {name: index for index, name in enumerate(classes)}
    label_n = np.array([number.get(_top(name), NO_LABEL) for name in found.names], np.int32)
    keys = UniqueKeys(found.names[row] for row in row_n)
    columns = FileColumns(folder=root, found=found, keys=keys, label_n=label_n)
    return Source(
        files=SourceFiles(columns, row_n),
        classes=classes,
        ignored=ignored,
        stray=[],
        others=walk.others,
    )


def _from_list(path: Path) -> Source:
    listed = read_list(path)
    if not len(listed.files):
        raise ConfigError(f"{path} lists no image; write a path a line, or give another list")
    columns = FileColumns(
        folder=path.parent,
        found=listed.files,
        keys=UniqueKeys(listed.files.names),
        label_n=listed.label_n,
        places=listed.places,
    )
    files = SourceFiles(columns, np.arange(len(listed.files)))
    return Source(files=files, classes=listed.classes, ignored=[], stray=[], is_listed=True)


def _with_masks(source: Source, root: Path, masks: MaskFolder) -> Source:
    columns = source.files.columns
    found, sizes = TextTable(), np.zeros(len(columns.found), np.int64)
    for row in range(len(columns.found)):
        file = columns.file(row)
        name = os.path.relpath(file.path, root)
        if name.startswith(".."):
            raise ConfigError(
                f"{file.path} does not lie below {root}, so that its mask cannot be found; give a "
                "list of paths below its own folder"
            )
        mask, sizes[row] = masks.mask_of(name)
        found.append(str(mask))
    columns = dataclasses.replace(columns, masks=found, mask_size_n=sizes)
    return dataclasses.replace(source, files=source.files.with_columns(columns))


def archives(names: list[str]) -> list[str]:
    """Return those names that end like an archive's."""
    return [name for name in names if name.lower().endswith(ARCHIVES)]


def _no_image(root: Path, others: FoundFiles, ignored: list[str]) -> str:
    kinds = f".{', .'.join(IMAGE_EXTENSIONS)}"
    packed = archives(ignored)
    if packed and not len(others) and all(name.lower().endswith(".parquet") for name in packed):
        return (
            f"{root} holds no image ({kinds}) but {len(packed)} Parquet files "
            f"({shortened(packed[0])}, …); give the folder that they lie in, without other folders"
        )
    if packed and not len(others):
        return (
            f"{root} holds no image ({kinds}) but {len(packed)} archives ({shortened(packed[0])}, "
            "…); unpack them, or give tars of WebDataset to `milan-pipeline index`"
        )
    if not len(others):
        return f"{root} holds no image ({kinds}); give another folder"
    return (
        f"{root} holds no image ({kinds}) but {len(others)} pictures of formats that are not read "
        f"({shortened(others[0].name)}, …); convert them to JPEG, PNG or WebP"
    )


def _top(name: str) -> str:
    return name.partition("/")[0]


def _hash(values: Iterable[str]) -> str:
    """Hash the lines of a text, which is never there as a whole."""
    digest = xxhash.xxh3_64()
    for number, value in enumerate(values):
        line = f"\n{value}" if number else value
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
