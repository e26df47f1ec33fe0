"""Scenes rendered ahead of time into one array, and views cut from them."""

import json
import multiprocessing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2
from tqdm import tqdm

from workflows.demo.compose import SIZE, Split, decoded_scene

VIEW = 64
"""Side of a view in pixels: what the teacher and the student see."""


class Pool(NamedTuple):
    """Rendered scenes."""

    pixels: NDArray[np.uint8]  # (n, 3, SIZE, SIZE)
    labels: NDArray[np.int64]  # (n,)
    captions: list[str]


class Crop(NamedTuple):
    """A part of a scene, in pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def render(seed: int, split: Split, count: int, workers: int) -> Pool:
    """The first `count` scenes of a split, after JPEG compression."""
    pixels = np.empty((count, 3, SIZE, SIZE), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    captions = []
    one = partial(decoded_scene, seed=seed, split=split)
    with multiprocessing.get_context("spawn").Pool(workers) as processes:
        drawn = processes.imap(one, range(count), chunksize=64)
        for i, (image, label, text) in enumerate(tqdm(drawn, "scenes", count, disable=None)):
            pixels[i], labels[i] = image, label
            captions.append(text)
    return Pool(pixels, labels, captions)


def cached(folder: Path, seed: int, split: Split, count: int, workers: int) -> Pool:
    """The same as `render`, kept in a folder; pixels are read from disk when they are needed."""
    path = folder / f"scenes-{seed}-{split}-{count}"
    if not path.exists():
        pool = render(seed, split, count, workers)
        part = path.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        np.save(part / "pixels.npy", pool.pixels)
        np.save(part / "labels.npy", pool.labels)
        (part / "captions.json").write_text(json.dumps(pool.captions))
        part.rename(path)
    return Pool(
        np.load(path / "pixels.npy", mmap_mode="r", allow_pickle=False),
        np.load(path / "labels.npy", allow_pickle=False),
        json.loads((path / "captions.json").read_text()),
    )


def whole_views(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Whole scenes as views: (n, 3, SIZE, SIZE) to (n, 3, VIEW, VIEW), uint8."""
    images = torch.from_numpy(np.array(pixels))
    views: torch.Tensor = v2.resize(images, [VIEW, VIEW], InterpolationMode.BICUBIC, antialias=True)
    return views


def random_crop(smallest: float, rng: np.random.Generator) -> Crop:
    """Draw a crop of `smallest` to all of a scene's area, mirrored half the time."""
    area, log_ratio = rng.uniform(smallest, 1), rng.uniform(-0.28, 0.28)
    height = min(SIZE, round(SIZE * np.sqrt(area * np.exp(log_ratio))))
    width = min(SIZE, round(SIZE * np.sqrt(area * np.exp(-log_ratio))))
    top, left = rng.integers(0, SIZE - height + 1), rng.integers(0, SIZE - width + 1)
    return Crop(int(top), int(left), height, width, bool(rng.random() < 0.5))


def crop_of(image: NDArray[np.uint8], crop: Crop, *, nearest: bool = False) -> torch.Tensor:
    """Cut (channels, SIZE, SIZE) and resize it to (channels, VIEW, VIEW); masks by the nearest."""
    rows, columns = (
        slice(start, start + length)
        for start, length in ((crop.top, crop.height), (crop.left, crop.width))
    )
    cut = torch.from_numpy(np.array(image[:, rows, columns]))
    how = InterpolationMode.NEAREST_EXACT if nearest else InterpolationMode.BICUBIC
    resized: torch.Tensor = v2.resize(cut, [VIEW, VIEW], how, antialias=not nearest)
    return resized.flip(-1) if crop.flip else resized


def random_views(
    pixels: NDArray[np.uint8], smallest: float, rng: np.random.Generator
) -> torch.Tensor:
    """A random crop of each scene: (n, 3, SIZE, SIZE) to (n, 3, VIEW, VIEW), uint8."""
    return torch.stack([crop_of(image, random_crop(smallest, rng)) for image in pixels])
