"""A folder of pictures of every kind that a real photo folder may hold.

Images painted from their masks, so that each pixel's colour tells its class.
"""

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.shards.sequential import iterate_shard
from tests.support.cli import run_cli

ORIENTATION = 0x0112


def noise(size: tuple[int, int], bands: int = 3, seed: int = 0) -> Image.Image:
    """Smooth noise: unlike under any flip, crop or rotation."""
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = random.integers(0, 256, (7, 5, bands), dtype=np.uint8).squeeze()
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write_photos(folder: Path) -> list[str]:
    """Write one readable picture of each kind; return the names of the files."""
    folder.mkdir(parents=True)
    rotated = Image.Exif()
    rotated[ORIENTATION] = 6
    grey16 = np.asarray(noise((41, 33), 1)).astype(np.uint16) * 257
    noise((60, 40)).save(folder / "baseline.jpg", quality=90)
    noise((40, 60)).save(folder / "progressive.JPG", progressive=True)
    noise((50, 50), 1).save(folder / "grey.jpeg")
    noise((45, 55), 4).convert("CMYK").save(folder / "cmyk.jpg")
    noise((64, 36)).save(folder / "rotated.jpg", exif=rotated)
    noise((37, 53), 4).save(folder / "alpha.png")
    noise((37, 53)).convert("P").save(folder / "palette.png")
    Image.fromarray(grey16).save(folder / "grey16.png")
    noise((48, 48)).save(folder / "lossy.webp", quality=80)
    noise((30, 70)).save(folder / "long strip of a.name.webp", lossless=True)
    noise((1, 1)).save(folder / "point.png")
    noise((1, 90)).save(folder / "line.png")
    return sorted(path.name for path in folder.iterdir())


COLOURS = np.array([(230, 30, 30), (30, 230, 30), (30, 30, 230)], dtype=np.uint8)


def labels(seed, size=(40, 52), block=8):
    """Draw blocks of the three classes, so many pixels wide and high."""
    rows, columns = (-(-side // block) for side in size)
    blocks = np.random.default_rng(seed).integers(3, size=(rows, columns), dtype=np.uint8)
    return blocks.repeat(block, axis=0).repeat(block, axis=1)[: size[0], : size[1]]


def png(pixels, palette=False):
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sample(seed=0, *, key="a", epoch=0, size=(40, 52), mask=None):
    """Return a sample as a table reads it; `mask` replaces the bytes of its mask."""
    drawn = labels(seed, size)
    return {
        "__key__": key,
        "__url__": "x.tar",
        "epoch": epoch,
        "number": seed,
        "image": png(COLOURS[drawn]),
        "mask": png(drawn) if mask is None else mask,
    }


def write_ade_tree(root, counts, *, size=(40, 52), block=8, first=0):
    """Write ADE20K's layout; counts: images of each part. Masks have 0 for what is ignored."""
    for part, count in counts.items():
        for number in range(count):
            drawn = labels(1000 * len(part) + number, size, block)
            name = f"ADE_{part}_{number:08d}"
            image = root / "images" / part / f"{name}.jpg"
            mask = root / "annotations" / part / f"{name}.png"
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(COLOURS[drawn]).save(image, quality=95)
            mask.write_bytes(png(drawn + np.uint8(first)))
    return root


def write_picture(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> None:
    """Write a small JPEG of smooth noise."""
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


def pack_torn(root: Path, count: int, torn: Collection[int]) -> Path:
    """Pack so many pictures, in order and 10 a shard, of which some end early."""
    for number in range(count):
        path = root / "in" / f"{number:02d}.jpg"
        write_picture(path, number)
        if number in torn:
            path.write_bytes(path.read_bytes()[:-200])
    words = ("--samples-per-shard", 10, "--no-shuffle")
    run_cli("pack-images", root / "in", root / "shards", *words)
    return root / "shards"


def load(shards: Path) -> Manifest:
    """Read the manifest of image shards."""
    return load_manifest(str(shards), kind="images")


def content(shards: Path) -> dict[str, dict[str, bytes]]:
    """Read the members of every sample of image shards."""
    manifest = load(shards)
    return {
        sample.key: sample.members
        for shard in manifest.shards
        for sample in iterate_shard(manifest, shard)
    }
