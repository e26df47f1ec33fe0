"""Labelled samples of a folder of image files: one sub-folder a class, or masks beside images."""

import dataclasses
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.core.text_table import TextTable
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.images.class_tree import some, warn_of_source
from milan_pipeline.images.sources import Source, find_source
from milan_pipeline.shards.random_access import Read


@dataclasses.dataclass(frozen=True)
class FolderPart:
    """Image files of a folder; their bytes are not checked by hashes.

    Attributes:
        root: the folder.
        names: of the images, below the folder.
        masks: paths of their masks; without masks, none.
        labels: (n,) class numbers; zeros where labels are masks.
    """

    root: Path
    names: TextTable
    masks: TextTable
    labels: NDArray[np.int64]

    @property
    def url(self) -> str:
        """Where the folder lies."""
        return str(self.root)

    def __len__(self) -> int:
        return len(self.names)

    def key(self, row: int) -> str:
        """Return an image's path in the folder."""
        return self.names[row]

    def name(self, row: int) -> str:
        """Return an image's path in the folder."""
        return self.names[row]

    def lengths(self) -> NDArray[np.int64]:
        """Return the bytes of each image file, (n,)."""
        sizes = [self._path(row).stat().st_size for row in range(len(self))]
        return np.array(sizes, dtype=np.int64)

    def digest(self, row: int) -> int:
        """Return the xxh3-64 of an image file."""
        return xxhash.xxh3_64_intdigest(storage.read_bytes(str(self._path(row))))

    def image(self, row: int, read: Read) -> bytes:
        """Read an image file."""
        del read
        return storage.read_bytes(str(self._path(row)))

    def mask(self, row: int, read: Read) -> bytes:
        """Read the mask of an image file."""
        del read
        return storage.read_bytes(self.masks[row])

    def take(self, rows_n: NDArray[np.int64]) -> "FolderPart":
        """Return the part with only these files."""
        masks = self.masks.take(rows_n) if len(self.masks) else self.masks
        return FolderPart(self.root, self.names.take(rows_n), masks, self.labels[rows_n])

    def shuffled(self, seed: int) -> "FolderPart":
        """Return the part in an order that depends on the number of files and the seed alone.

        Files are listed class after class, and each is read on its own: any order is as fast.
        """
        draws = keyed_generator("folder", seed).random(len(self))
        return self.take(np.argsort(draws, kind="stable"))

    def _path(self, row: int) -> Path:
        return self.root / self.names[row]


def scan_folder(
    root: Path, *, kind: str, masks: str | None
) -> tuple[FolderPart, tuple[str, ...], str]:
    """List a folder of images and their labels, without opening any image.

    Returns:
        The part, the names of the classes, and the folder's fingerprint.

    Raises:
        ConfigError: the folder has no images or no classes, or its path does not tell the masks'.
        MissingDataError: an image or its mask is not there.
        StorageError: a folder cannot be listed.
    """
    folder = None
    if kind == "mask":
        folder = _masks_folder(root) if masks is None else Path(masks)
    source = find_source(root, masks=folder)
    _require_whole(source)
    names = TextTable(source.files.names())
    if kind == "mask":
        paths = TextTable(str(file.mask) for file in source.files if file.mask is not None)
        labels = np.zeros(len(names), dtype=np.int64)
        return FolderPart(root, names, paths, labels), (), source.fingerprint()
    warn_of_source(source, root)
    numbers = list(source.files.labels())
    if None in numbers:
        outside = some([file.name for file in source.files if file.label is None])
        raise ConfigError(
            f"{root} has images outside class folders ({outside}); give one sub-folder a class"
        )
    part = FolderPart(root, names, TextTable([]), np.array(numbers, dtype=np.int64))
    return part, tuple(source.classes), source.fingerprint()


def _require_whole(source: Source) -> None:
    """Refuse files that are known to be unreadable, since training would end at the first of them.

    Raises:
        MissingDataError: there are some; the first is named.
    """
    faulty = [file for file in source.files if file.fault is not None]
    if faulty:
        others = f", and {len(faulty) - 1} others are like it" if len(faulty) > 1 else ""
        raise MissingDataError(
            f"{faulty[0].path} is {faulty[0].fault}{others}; restore that, or remove the link"
        )


def _masks_folder(root: Path) -> Path:
    """Return where ADE20K keeps the masks of a folder of images: `annotations` for `images`."""
    parts = root.absolute().parts
    if "images" not in parts:
        raise ConfigError(
            f"the path {root} does not say where its masks are; give a folder below images/, with "
            "masks of the same names below annotations/, as ADE20K has them"
        )
    at = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:at], "annotations", *parts[at + 1 :])
