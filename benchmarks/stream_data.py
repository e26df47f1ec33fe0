"""Data for benchmarks: photo-like JPEGs, as files and as shards, and made-up targets."""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.data.join_pairs import join_pairs
from milan_pipeline.data.pair_table import PairTable
from milan_pipeline.images.decode import digest
from milan_pipeline.images.views import random_resized_crop
from milan_pipeline.shards.columns import read_image_columns, read_target_columns
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.shard_records import TARGET_EXTENSION, RecordLayout

WIDTH, HEIGHT = 500, 375
# (cells across, strength): large soft shapes, smaller ones, texture; JPEGs of about 65 kB.
OCTAVES = ((5, 90.0), (20, 40.0), (80, 18.0))
GRAIN, QUALITY = 8.0, 87
PATCHES, TARGET_WIDTH = 196, 512  # of CLIP ViT-B/16 at 224 px
SHARDS = 3


class World(NamedTuple):
    """The data that the contestants read: the same JPEGs in every form."""

    jpegs: list[bytes]
    folder: Path
    image_tars: list[str]
    target_tars: list[str]
    pairs: PairTable
    layout: RecordLayout


def make_world(
    root: Path,
    images: int,
    target_width: int = TARGET_WIDTH,
    *,
    patches: int = PATCHES,
    photos: int | None = None,
) -> World:
    """Write `images` JPEGs under `root`: as class folders, and as shards with targets.

    Args:
        root: a folder.
        images: how many.
        target_width: channels of a target.
        patches: tokens of a target beside that of the image.
        photos: how many different ones there are, since drawing takes time; None is all.
    """
    drawn = [photo(number) for number in range(images if photos is None else photos)]
    jpegs = [drawn[number % len(drawn)] for number in range(images)]
    for number, data in enumerate(jpegs):
        path = root / "folder" / f"class-{number % 10}" / f"{_key(number)}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    layout = RecordLayout(codec=parse_codec("int8"), patches=patches, width=target_width)
    parts = np.array_split(np.arange(images), SHARDS)
    image_shards = tuple(
        write_shard(str(root / "images"), f"train-{part:06d}.tar", _image_samples(jpegs, numbers))
        for part, numbers in enumerate(parts)
    )
    target_shards = tuple(
        _write_targets(root / "targets", source, jpegs, numbers, layout)
        for source, numbers in zip(image_shards, parts, strict=True)
    )
    sources = Manifest(kind="images", folder=str(root / "images"), shards=image_shards)
    targets = Manifest(kind="targets", folder=str(root / "targets"), shards=target_shards)
    sources.save()
    targets.save()
    columns = read_image_columns(sources.folder), read_target_columns(targets.folder)
    return World(
        jpegs=jpegs,
        folder=root / "folder",
        image_tars=[sources.url_of(shard) for shard in image_shards],
        target_tars=[targets.url_of(shard) for shard in target_shards],
        pairs=join_pairs(columns[0], [columns[1]], views=1, on_missing="error"),
        layout=layout,
    )


def add_teacher(root: Path, jpegs: list[bytes], target_width: int) -> tuple[str, RecordLayout]:
    """Write targets of a second teacher beside a world's; return their folder and layout.

    Args:
        root: of the world.
        jpegs: its images.
        target_width: channels of a target.
    """
    layout = RecordLayout(codec=parse_codec("int8"), patches=PATCHES, width=target_width)
    sources = load_manifest(str(root / "images"), kind="images").shards
    parts = np.array_split(np.arange(len(jpegs)), len(sources))
    folder = root / "second"
    shards = [
        _write_targets(folder, source, jpegs, numbers, layout)
        for source, numbers in zip(sources, parts, strict=True)
    ]
    Manifest(kind="targets", folder=str(folder), shards=tuple(shards)).save()
    return str(folder), layout


def photo(seed: int) -> bytes:
    """Draw a JPEG whose spectrum and size are those of a photograph."""
    random = np.random.Generator(np.random.PCG64(seed))
    pixels_HW3 = np.full((HEIGHT, WIDTH, 3), 118.0, np.float32)
    for cells, strength in OCTAVES:
        noise = random.standard_normal((cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(noise[:, :, channel]).resize((WIDTH, HEIGHT))
            pixels_HW3[:, :, channel] += strength * np.asarray(layer)
    pixels_HW3 += GRAIN * random.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _key(number: int) -> str:
    return f"photo-{number:06d}"


def _image_samples(jpegs: list[bytes], numbers: NDArray[np.int64]) -> Iterator[Sample]:
    for number in numbers.tolist():
        yield Sample(_key(number), {"jpg": jpegs[number], "cls": str(number % 10).encode()})


def _write_targets(
    folder: Path,
    source: Shard,
    jpegs: list[bytes],
    numbers: NDArray[np.int64],
    layout: RecordLayout,
) -> Shard:
    """Write targets of the real size and layout; their codes are noise, which no model uses."""

    def samples() -> Iterator[Sample]:
        for number in numbers.tolist():
            random = np.random.Generator(np.random.PCG64(number))
            box = random_resized_crop(HEIGHT, WIDTH, seed=0, key=_key(number), view=0)
            record = np.zeros((), dtype=layout.dtype)
            record["box"] = box.top, box.left, box.height, box.width
            record["flip"] = box.flip
            record["digest"] = digest(jpegs[number])
            record["prior"] = random.dirichlet(np.ones(layout.patches))
            record["scale"] = 0.01
            record["codes"] = random.integers(-127, 128, record["codes"].shape, dtype=np.int8)
            yield Sample(_key(number), {TARGET_EXTENSION: layout.to_bytes(record)})

    shard = write_shard(str(folder), f"view-00/targets-v00-{source.stem}.tar", samples())
    details = {"view": 0, "source": source.stem, "source_sha256": source.sha256, "skipped": []}
    return dataclasses.replace(shard, details=details)
