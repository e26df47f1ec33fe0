"""Labelled pictures whose class shows in their colour."""

import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import repack_fields
from PIL import Image

from milan_pipeline.shards.index import index_bytes, load_index
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.shards.writer import Sample, write_shard

CLASSES = 5
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}


def write_coloured(root: Path, each: int, *, seed: int = 0, noise: float = 60) -> Path:
    """Write `each` noisy pictures of each colour in class folders."""
    random = np.random.Generator(np.random.PCG64(seed))
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.normal(0, noise, (6, 6, 3)) + colour
            small = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            path = root / name / f"{number:03d}.jpg"
            small.resize((44, 38), Image.Resampling.BICUBIC).save(path, quality=90)
    return root


def spoil(path: Path) -> None:
    """Cut a picture off in its middle: the header is sound, and it cannot be decoded."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def png(label, rng):
    rgb = rng.integers(0, 60, (12, 17, 3), dtype=np.uint8)
    rgb[..., label] += 150
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


def shards(folder, count, *, seed, bad=(), labelled=True, classes=(), only=None):
    """Write labelled images of three colours, `only` some of them, in two shards; return where."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count) if only is None else only:
        members = {"png": b"broken" if index in bad else png(index % 3, rng)}
        if labelled:
            members["cls"] = str(index % 3).encode()
        samples.append(Sample(f"{index:04d}", members))
    half = len(samples) // 2
    listed = tuple(
        write_shard(str(folder), f"images-{number}.tar", part)
        for number, part in enumerate((samples[:half], samples[half:]))
    )
    common = {"classes": list(classes)}
    Manifest(kind="images", folder=str(folder), shards=listed, common=common).save()
    return str(folder)


def forget_labels(folder):
    """Make the indices of a folder of shards those of version 0.1.0, which have no labels."""
    manifest = load_manifest(str(folder), kind="images")
    shards = []
    for shard in manifest.shards:
        table = load_index(manifest, shard)[["key", "offset", "length", "xxh3"]]
        data = index_bytes(repack_fields(table))
        Path(manifest.index_url_of(shard)).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        shards.append(dataclasses.replace(shard, index_sha256=digest))
    dataclasses.replace(manifest, shards=tuple(shards)).save()


def blobs(per_class, *, spread, seed, width=16):
    """Return Gaussian clouds, one a class, around fixed centres."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, width))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), per_class)) * 10 + 3
    noise = rng.normal(size=(len(labels), width))
    features = centres[(labels - 3) // 10] + spread * noise
    return features.astype(np.float32), labels
