"""Which files make up a dataset: a class-folder tree, a flat folder, or a list file."""

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import xxhash

from milan_pipeline.errors import ConfigError, DataError, MissingDataError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
EXTENSION = re.compile(r"(?<=[^/])\.[^./]*\Z")
UNSAFE_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One image file, the key of its sample and, where there are any, its class number and mask."""

    path: Path
    key: str
    label: int | None
    mask: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset's files in order, its class names, and the files that were left out by name.

    `stray` names the images that lie beside sub-folders with images, and so make it no class tree.
    """

    files: list[SourceFile]
    classes: list[str]
    ignored: list[str]
    stray: list[str]

    def fingerprint(self) -> str:
        """Hash names, sizes and times of all files: it changes when the dataset does."""
        rows = []
        for file in self.files:
            stats = [path.stat() for path in (file.path, file.mask) if path is not None]
            sizes = (f"{stat.st_size}\t{stat.st_mtime_ns}" for stat in stats)
            rows.append("\t".join([file.key, str(file.label), *sizes]))
        return xxhash.xxh3_128_hexdigest("\n".join(rows).encode())


def find_source(path: Path) -> Source:
    """List a dataset.

    A folder whose images all lie in sub-folders is a class tree: the first folder level is the
    class, numbered in sorted order. Any other folder is flat (sub-folders included) and has no
    classes. A file is a list: one path a line, relative to the list, then optionally a tab and a
    class number.

    Raises:
        ConfigError: there is no such file or folder, or no image in it.
        DataError: a line of a list cannot be used.
    """
    if path.is_dir():
        source = _from_folder(path)
    elif path.is_file():
        source = _from_list(path)
    else:
        raise ConfigError(f"SOURCE {path} does not exist; give a folder or a list file")
    if not source.files:
        raise ConfigError(
            f"SOURCE {path} holds no image (.{', .'.join(IMAGE_EXTENSIONS)}); give another folder"
        )
    return source


def with_masks(source: Source, root: Path, masks: Path) -> Source:
    """Return a source whose files have the masks that lie in a folder; see `masks_of`."""
    found = masks_of([file.path for file in source.files], root, masks)
    pairs = zip(source.files, found, strict=True)
    files = [dataclasses.replace(file, mask=mask) for file, mask in pairs]
    return dataclasses.replace(source, files=files)


def masks_of(images: list[Path], root: Path, masks: Path) -> list[Path]:
    """Return each image's mask: the same path, below another folder and ending in `.png`.

    Args:
        images: their paths.
        root: the folder that they lie in.
        masks: the folder that takes its place.

    Raises:
        MissingDataError: an image has no mask; it is named.
    """
    found = [(masks / path.relative_to(root)).with_suffix(".png") for path in images]
    missing = next((path for path in found if not path.is_file()), None)
    if missing is not None:
        raise MissingDataError(f"{missing} does not exist, but its image does; add the mask")
    return found


def shuffled(files: list[SourceFile], seed: int) -> list[SourceFile]:
    """Return the files in an order that depends on nothing but their number and the seed."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(files))
    return [files[index] for index in order]


def _from_folder(root: Path) -> Source:
    # Links to folders are followed, as ImageFolder does: subsets of data sets are made of them.
    walk = os.walk(root, followlinks=True)
    found = sorted(Path(folder, name) for folder, _, names in walk for name in names)
    images = [path for path in found if _is_image_name(path)]
    ignored = [str(path.relative_to(root)) for path in found if not _is_image_name(path)]
    parts = [path.relative_to(root).parts for path in images]
    is_tree = all(len(part) > 1 for part in parts)
    classes = sorted({part[0] for part in parts}) if is_tree else []
    is_flat = all(len(part) == 1 for part in parts)
    stray = [] if is_tree or is_flat else [part[0] for part in parts if len(part) == 1]
    number = {name: index for index, name in enumerate(classes)}
    labels = [number[part[0]] if is_tree else None for part in parts]
    keys = _unique_keys(["/".join(part) for part in parts])
    files = _source_files(images, keys, labels)
    return Source(files=files, classes=classes, ignored=ignored, stray=stray)


def _from_list(path: Path) -> Source:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no list in UTF-8 ({error}); give a list of files") from error
    labels: dict[str, int | None] = {}
    for number, line in enumerate(lines, start=1):
        name, _, label = line.partition("\t")
        if not name.strip():
            continue
        if label.strip() and not label.strip().isdecimal():
            raise DataError(f"{path} line {number}: {label!r} is no class number; write 0, 1, ...")
        if not (path.parent / name).is_file():
            raise DataError(f"{path} line {number}: {name!r} is no file; correct the list")
        if name in labels:
            raise DataError(f"{path} line {number}: {name!r} comes twice; take one line out")
        labels[name] = int(label) if label.strip() else None
    names = list(labels)
    paths = [path.parent / name for name in names]
    files = _source_files(paths, _unique_keys(names), list(labels.values()))
    return Source(files=files, classes=[], ignored=[], stray=[])


def _source_files(paths: list[Path], keys: list[str], labels: list[int | None]) -> list[SourceFile]:
    return [
        SourceFile(path=path, key=key, label=label)
        for path, key, label in zip(paths, keys, labels, strict=True)
    ]


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and not path.name.startswith(".")


def _unique_keys(names: list[str]) -> list[str]:
    """Turn relative paths into keys that WebDataset cannot merge.

    A dot would end the key, so unusual characters become `_`; where that changes the name or two
    names meet, a hash of the original keeps them apart. A key depends on the names alone, so that
    repacking the same files gives the same keys, and so the same views.
    """
    stems = [EXTENSION.sub("", name).lstrip("/") for name in names]
    plain = ["/".join(UNSAFE_IN_KEYS.sub("_", part) for part in stem.split("/")) for stem in stems]
    count = Counter(key.lower() for key in plain)
    return [
        key
        if key == stem and count[key.lower()] == 1
        else f"{key}-{xxhash.xxh3_64_hexdigest(os.fsencode(name))}"
        for key, stem, name in zip(plain, stems, names, strict=True)
    ]
