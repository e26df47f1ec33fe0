"""The page of image shards: facts, classes with their counts, and some of the images."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from milan_pipeline import storage
from milan_pipeline.errors import BadImageError
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.report.class_tables import MOST_CLASSES, named
from milan_pipeline.report.facts import Facts, text_of
from milan_pipeline.report.gallery import jpeg_uri
from milan_pipeline.report.page import Page, Picture, Table, shown
from milan_pipeline.report.target_rows import draw_samples
from milan_pipeline.shards.index import CLASS_FIELD, load_index
from milan_pipeline.shards.labels import NO_CLASS
from milan_pipeline.shards.manifest import Manifest, load_manifest

SIDE = 176


def image_page(url: str, facts: Facts, *, gallery: int, seed: int) -> Page:
    """Make the page of a folder of image shards.

    Args:
        url: the folder.
        facts: of it.
        gallery: images to show.
        seed: of which.

    Raises:
        DataError: an index or an image's bytes are damaged.
    """
    manifest = load_manifest(url, kind="images", allow_unfinished=True)
    names, numbers = manifest.common.get("classes") or [], class_numbers(manifest)
    pictures, bad = _pictures(manifest, numbers, names, gallery, seed)
    unreadable = f" {bad} of those cannot be decoded and are left out." if bad else ""
    return Page(
        title=storage.basename(url.rstrip("/")),
        kind="image shards",
        state=str(facts["image shards"]["state"]),
        paths=[url],
        highlights=[
            ("images", text_of("", facts["counts"]["images"])),
            ("shards", text_of("", facts["counts"]["shards"])),
            ("in all", text_of("bytes", facts["sizes"]["all_shards_bytes"])),
            ("an image, about", text_of("bytes", facts["sizes"]["one_image_about_bytes"])),
        ],
        facts=shown(facts),
        notes=[f"{gallery} images at most were drawn by the seed {seed}.{unreadable}"],
        pictures=pictures,
        tables=_classes(list(numbers.values()), names),
    )


def class_numbers(manifest: Manifest) -> dict[str, NDArray[np.int64]]:
    """Return the class of each sample of each shard, by the shard's stem; -1 of those without.

    Raises:
        DataError: an index is damaged.
    """
    numbers: dict[str, NDArray[np.int64]] = {}
    for shard in manifest.shards:
        table = load_index(manifest, shard)
        has = CLASS_FIELD in (table.dtype.names or ())
        column = table[CLASS_FIELD] if has else np.full(len(table), NO_CLASS)
        numbers[shard.stem] = np.asarray(column, dtype=np.int64)
    return numbers


def _classes(numbers: Sequence[NDArray[np.int64]], names: Sequence[str]) -> list[Table]:
    """Tell how many images the largest classes have; nothing of images without classes."""
    every = np.concatenate([*numbers, np.zeros(0, np.int64)])
    counts = np.bincount(every[every >= 0], minlength=len(names))
    if not counts.sum():
        return []
    order = np.argsort(-counts, kind="stable")
    rows = [
        [named(number, names), f"{counts[number]:,}", f"{100 * counts[number] / len(every):.1f}%"]
        for number in order[:MOST_CLASSES].tolist()
    ]
    without = int((every < 0).sum())
    words = f"{len(counts)} classes, from {counts.min():,} to {counts.max():,} images" + (
        f"; {without:,} images have none." if without else "."
    )
    columns = ("class", "images", "share")
    return [Table(anchor="classes", title="Classes", columns=columns, rows=rows, words=words)]


def _pictures(
    manifest: Manifest,
    numbers: Mapping[str, NDArray[np.int64]],
    names: Sequence[str],
    count: int,
    seed: int,
) -> tuple[list[Picture], int]:
    """Return some images with their classes, and how many could not be decoded."""
    generator = np.random.Generator(np.random.PCG64(seed))
    pictures, bad = [], 0
    for shard, rows, keys, data in draw_samples(manifest, count, generator):
        classes = numbers[shard.stem][rows].tolist()
        for key, number, image in zip(keys, classes, data, strict=True):
            try:
                uri = jpeg_uri(_square(decode_rgb(image)))
            except BadImageError:
                bad += 1
                continue
            label = named(number, names) if number >= 0 else ""
            pictures.append(Picture(key=key, label=label, uri=uri))
    return pictures, bad


def _square(rgb_HWC: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(rgb_HWC.copy()).permute(2, 0, 1)[None]
    square = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)[0]
    return np.ascontiguousarray(square.permute(1, 2, 0).numpy())
