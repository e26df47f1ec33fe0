"""Which files make up a dataset: a class-folder tree, a flat folder, or a list file."""

import dataclasses
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from milan_pipeline.errors import ConfigError, StorageError
from milan_pipeline.images.file_faults import fault_of, is_link, shortened
from milan_pipeline.images.folder_walk import Found, Ignored, Walk, walk_folder
from milan_pipeline.images.formats import IMAGE_EXTENSIONS
from milan_pipeline.images.keys import unique_keys
from milan_pipeline.images.lists import read_list
from milan_pipeline.images.mask_files import MaskFolder
from milan_pipeline.images.spelling import require_distinct
from milan_pipeline.storage.retries import retried

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip", ".7z", ".rar", ".parquet")
BESIDE_CLASSES = "a picture beside the class folders, of a format that is not read"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One picture and the key of its sample.

    Attributes:
        name: its path below the source's folder, or as a list has it.
        folder: what the name is below.
        size: its bytes.
        key: of its sample.
        label: its class number, if it has one.
        fault: why it cannot be read, where that is known already.
        is_read: whether it is of a format that is read, as far as its name and first bytes tell.
        mask: its mask, if masks were asked for.
        mask_size: bytes of the mask.
        place: where it lies, if that is not below the folder, or the name is short for it.
    """

    name: str
    folder: Path
    size: int
    key: str
    label: int | None
    fault: str | None = None
    is_read: bool = True
    mask: Path | None = None
    mask_size: int = 0
    place: str | None = None

    @property
    def path(self) -> Path:
        """Where it lies; made when asked for, since paths of a million files take 300 MB."""
        return self.folder / (self.name if self.place is None else self.place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset's files in order, its class names, and what was left out.

    `stray` names the images that lie beside sub-folders with images, and so make it no class tree;
    `others` the folders beside class folders that hold files, but no picture.
    """

    files: list[SourceFile]
    classes: list[str]
    ignored: list[Ignored]
    stray: list[str]
    others: list[str] = dataclasses.field(default_factory=list)

    def fingerprint(self) -> str:
        """Say what the files are, by hashes of their names, sizes and classes, never of times.

        It stays the same for a copy, and shows what differs in another dataset.
        """
        labels = [*self.classes, *(str(file.label) for file in self.files)]
        parts = {
            "names": _hash(file.name for file in self.files),
            "sizes": _hash(str(file.size) for file in self.files),
            "classes": _hash(labels),
        }
        if any(file.mask is not None for file in self.files):
            parts["sizes of masks"] = _hash(str(file.mask_size) for file in self.files)
        hashes = ", ".join(f"{what} {value}" for what, value in parts.items())
        size = sum(file.size for file in self.files)
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
    is_folder = _is_folder(path)
    root = path if is_folder else path.parent
    mask_folder = None if masks is None else MaskFolder(masks, root)
    if is_folder:
        passed = leave_out if masks is None else (*leave_out, masks)
        walk = walk_folder(path, leave_out=passed)
        files = walk.files if mask_folder is None else mask_folder.images_among(walk.files)
        source = _from_folder(path, files, walk)
    else:
        source = _from_list(path)
    if mask_folder is None:
        return source
    source = _with_masks(source, root, mask_folder)
    if is_folder:
        mask_folder.warn_of_others([file.mask for file in source.files if file.mask is not None])
    return source


def shuffled(files: list[SourceFile], seed: int) -> list[SourceFile]:
    """Return the files in an order that depends on nothing but their number and the seed."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(files))
    return [files[index] for index in order]


def _is_folder(path: Path) -> bool:
    """Tell a folder from a list; refuse what is neither."""
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


def _from_folder(root: Path, files: list[Found], walk: Walk) -> Source:
    images = [file for file in files if file.kind == "image"]
    if not images:
        raise ConfigError(_no_image(root, files, [row["file"] for row in walk.ignored]))
    is_tree = all("/" in file.name for file in images)
    ignored = walk.ignored
    if is_tree:
        beside = [file for file in files if "/" not in file.name]
        rows: list[Ignored] = [{"file": file.name, "reason": BESIDE_CLASSES} for file in beside]
        ignored = sorted([*ignored, *rows], key=lambda row: row["file"].split("/"))
        files = [file for file in files if "/" in file.name]
    tops = [file.name.partition("/")[0] for file in files]
    classes = sorted({*tops, *walk.empty}) if is_tree else []
    require_distinct(classes, root)
    number = {name: index for index, name in enumerate(classes)}
    is_flat = not any("/" in file.name for file in images)
    stray = [] if is_tree or is_flat else [file.name for file in images if "/" not in file.name]
    keys = unique_keys([file.name for file in files])
    found = [
        SourceFile(
            name=file.name,
            folder=root,
            size=file.size,
            key=key,
            label=number[top] if is_tree else None,
            fault=file.fault,
            is_read=file.kind == "image",
        )
        for file, key, top in zip(files, keys, tops, strict=True)
    ]
    others = walk.others if is_tree else []
    return Source(files=found, classes=classes, ignored=ignored, stray=stray, others=others)


def _from_list(path: Path) -> Source:
    listed, classes = read_list(path)
    if not listed:
        raise ConfigError(f"{path} lists no image; write a path a line, or give another list")
    keys = unique_keys([row.name for row in listed])
    files = [
        SourceFile(
            name=row.name,
            folder=path.parent,
            size=row.size,
            key=key,
            label=row.label,
            place=str(row.path) if row.name.startswith("~") else None,
        )
        for row, key in zip(listed, keys, strict=True)
    ]
    return Source(files=files, classes=classes, ignored=[], stray=[])


def _with_masks(source: Source, root: Path, masks: MaskFolder) -> Source:
    files = []
    for file in source.files:
        name = os.path.relpath(file.path, root)
        if name.startswith(".."):
            raise ConfigError(
                f"{file.path} does not lie below {root}, so that its mask cannot be found; give a "
                "list of paths below its own folder"
            )
        mask, size = masks.mask_of(name)
        files.append(dataclasses.replace(file, mask=mask, mask_size=size))
    return dataclasses.replace(source, files=files)


def archives(names: list[str]) -> list[str]:
    """Return those names that end like an archive's."""
    return [name for name in names if name.lower().endswith(ARCHIVES)]


def _no_image(root: Path, others: list[Found], ignored: list[str]) -> str:
    kinds = f".{', .'.join(IMAGE_EXTENSIONS)}"
    packed = archives(ignored)
    if packed and not others:
        return (
            f"{root} holds no image ({kinds}) but {len(packed)} archives ({shortened(packed[0])}, "
            "…); unpack them, or give tars of WebDataset to `milan-pipeline index`"
        )
    if not others:
        return f"{root} holds no image ({kinds}); give another folder"
    return (
        f"{root} holds no image ({kinds}) but {len(others)} pictures of formats that are not read "
        f"({shortened(others[0].name)}, …); convert them to JPEG, PNG or WebP"
    )


def _hash(values: Iterable[str]) -> str:
    """Hash the lines of a text, which is never there as a whole."""
    digest = xxhash.xxh3_64()
    for number, value in enumerate(values):
        line = f"\n{value}" if number else value
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
