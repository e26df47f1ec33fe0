"""Labelled pictures whose class shows in their colour."""

from pathlib import Path

import numpy as np
from PIL import Image

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
