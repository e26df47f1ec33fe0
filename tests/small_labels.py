"""Labelled pictures whose class shows in their colour, and a ViT small enough to learn it."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
TINY_VIT = (
    "--encoder", "timm:test_vit", "--image-size", 32,
)  # fmt: skip


def write_coloured(root: Path, each: int, seed: int = 0, size: tuple[int, int] = (44, 38)) -> Path:
    """Write `each` noisy pictures of each colour in class folders."""
    random = np.random.Generator(np.random.PCG64(seed))
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            noise = random.normal(0, 60, (6, 6, 3)) + colour
            small = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            path = root / name / f"{number:03d}.jpg"
            small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return root
