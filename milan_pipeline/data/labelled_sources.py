"""Labelled samples of a folder of image files, or of image shards.

A folder has one sub-folder for each class, or masks beside its images. Shards are scanned for
labels: each shard is read once from end to end, and its hash is checked.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.console import progress_bar
from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import ConfigError, DataError, MissingDataError
from milan_pipeline.images.class_tree import warn_of_source
from milan_pipeline.images.formats import IMAGE_EXTENSIONS
from milan_pipeline.images.sources import Source, find_source
from milan_pipeline.shards.cache import ShardFile
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.random_access import Read
from milan_pipeline.shards.sequential import scan_shard
from milan_pipeline.shards.writer import Sample


@dataclasses.dataclass(frozen=True)
class FolderPart:
    """Image files of a folder; their bytes are not checked by hashes."""

    root: Path
    images: list[Path]
    masks: list[Path]
    labels: NDArray[np.int64]

    @property
    def url(self) -> str:
        """Where the folder lies."""
        return str(self.root)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, row: int) -> str:
        """Return an image's path in the folder."""
        return self.images[row].relative_to(self.root).as_posix()

    def image(self, row: int, read: Read) -> bytes:
        """Read an image file."""
        del read
        return storage.read_bytes(str(self.images[row]))

    def mask(self, row: int, read: Read) -> bytes:
        """Read the mask of an image file."""
        del read
        return storage.read_bytes(str(self.masks[row]))

    def take(self, rows_n: NDArray[np.int64]) -> "FolderPart":
        """Return the part with only these files."""
        images = [self.images[row] for row in rows_n]
        masks = [self.masks[row] for row in rows_n] if self.masks else []
        return FolderPart(self.root, images, masks, self.labels[rows_n])

    def shuffled(self, seed: int) -> "FolderPart":
        """Return the part in an order that depends on the number of files and the seed alone.

        Files are listed class after class, and each is read on its own: any order is as fast.
        """
        draws = keyed_generator("folder", seed).random(len(self))
        return self.take(np.argsort(draws, kind="stable"))


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
    images = [file.path for file in source.files]
    if kind == "mask":
        paths = [file.mask for file in source.files if file.mask is not None]
        labels = np.zeros(len(images), dtype=np.int64)
        return FolderPart(root, images, paths, labels), (), source.fingerprint()
    warn_of_source(source, root)
    numbers = [file.label for file in source.files]
    if None in numbers:
        raise ConfigError(f"{root} has images outside class folders; give one sub-folder a class")
    part = FolderPart(root, images, [], np.array(numbers, dtype=np.int64))
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
            f"the path {root} does not tell where its masks are; give a folder below images/, with "
            "masks of the same names below annotations/, as ADE20K has them"
        )
    at = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:at], "annotations", *parts[at + 1 :])


MASK_EXTENSIONS = ("mask.png", "seg.png")
SCAN_THREADS = 8
PLACE = ("offset", "length", "xxh3")
NO_PLACE = (0, 0, 0)


@dataclasses.dataclass(frozen=True)
class ShardPart:
    """The labelled samples of an image shard; `rows` come from `scan_shards`."""

    file: ShardFile
    rows: NDArray[np.void]

    @property
    def url(self) -> str:
        """Where the shard lies."""
        return self.file.url

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class numbers."""
        labels: NDArray[np.int64] = self.rows["label"]
        return labels

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, row: int) -> str:
        """Return a sample's key."""
        key: bytes = self.rows["key"][row]
        return key.decode()

    def image(self, row: int, read: Read) -> bytes:
        """Read a sample's image, checked by its hash."""
        return read(self.file, *(int(self.rows[f"image_{name}"][row]) for name in PLACE))

    def mask(self, row: int, read: Read) -> bytes:
        """Read a sample's mask, checked by its hash."""
        return read(self.file, *(int(self.rows[f"mask_{name}"][row]) for name in PLACE))

    def take(self, rows_n: NDArray[np.int64]) -> "ShardPart":
        """Return the part with only these samples."""
        return ShardPart(self.file, self.rows[rows_n])

    def shuffled(self, seed: int) -> "ShardPart":
        """Return the part as it is, since samples of a tar are read fastest in their own order."""
        del seed
        return self


def scan_shards(manifest: Manifest, *, kind: str, scans: Path | None) -> list[ShardPart]:
    """Find the labels of all shards: read each once from end to end, and check its hash.

    Args:
        manifest: of image shards.
        kind: "class" or "mask"; a sample without its own label is an error.
        scans: folder that keeps the labels found, for the next time.

    Raises:
        DataError: a shard is not the one that the manifest lists, or a sample has no label.
    """

    def scanned(shard: Shard) -> ShardPart:
        file = ShardFile(manifest.url_of(shard), shard.bytes, shard.sha256)
        name = hashlib.sha256(f"{kind} {shard.sha256}".encode()).hexdigest()[:32]
        stored = None if scans is None else _stored_rows(scans, name)
        if stored is not None:
            return ShardPart(file, stored)
        rows = _rows(_labelled_rows(manifest, shard, kind))
        if scans is not None:
            _store_rows(scans, name, rows)
        return ShardPart(file, rows)

    parts = []
    scans_done = ordered_map(scanned, manifest.shards, workers=SCAN_THREADS, ahead=2 * SCAN_THREADS)
    with progress_bar("labels", total=manifest.samples) as bar:
        for part in scans_done:
            parts.append(part)
            bar.update(len(part))
    return parts


def _labelled_rows(manifest: Manifest, shard: Shard, kind: str) -> Iterator[tuple[Any, ...]]:
    for sample, offsets in scan_shard(manifest, shard):
        image = next((e for e in IMAGE_EXTENSIONS if e in sample.members), None)
        if image is None:
            continue
        label, mask = 0, NO_PLACE
        if kind == "class":
            label = _class_number(sample, shard.name)
        else:
            mask = _place(sample, offsets, _mask_member(sample, shard.name))
        yield sample.key.encode(), *_place(sample, offsets, image), label, *mask


def _place(sample: Sample, offsets: dict[str, int], extension: str) -> tuple[int, int, int]:
    data = sample.members[extension]
    return offsets[extension], len(data), xxhash.xxh3_64_intdigest(data)


def _class_number(sample: Sample, shard: str) -> int:
    try:
        number = int(sample.members["cls"])
    except (KeyError, ValueError):
        number = -1
    if number < 0:
        raise DataError(
            f"sample {sample.key!r} of {shard} has no class number in a .cls member; give labelled "
            "shards"
        )
    return number


def _mask_member(sample: Sample, shard: str) -> str:
    extension = next((e for e in MASK_EXTENSIONS if e in sample.members), None)
    if extension is None:
        raise DataError(
            f"sample {sample.key!r} of {shard} has no .{MASK_EXTENSIONS[0]} member; give shards "
            "with masks"
        )
    return extension


def _rows(samples: Iterator[tuple[Any, ...]]) -> NDArray[np.void]:
    rows = list(samples)
    width = max((len(row[0]) for row in rows), default=1)
    kinds = dict(zip(PLACE, ("<i8", "<i8", "<u8"), strict=True))
    places = {n: [(f"{n}_{name}", kinds[name]) for name in PLACE] for n in ("image", "mask")}
    dtype = [("key", f"S{width}"), *places["image"], ("label", "<i8"), *places["mask"]]
    return np.array(rows, dtype=dtype)


def _store_rows(scans: Path, name: str, rows: NDArray[np.void]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    data = buffer.getvalue()
    storage.put_bytes(str(scans / f"{name}.npy"), hashlib.sha256(data).digest() + data)


def _stored_rows(scans: Path, name: str) -> NDArray[np.void] | None:
    """Return the rows of an earlier scan; None if there was none, or if its file is damaged."""
    path = scans / f"{name}.npy"
    if not path.exists():
        return None
    data = path.read_bytes()
    digest, data = data[:32], data[32:]
    if hashlib.sha256(data).digest() != digest:
        return None
    rows: NDArray[np.void] = np.load(io.BytesIO(data), allow_pickle=False)
    return rows
