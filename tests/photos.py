"""A folder of pictures of every kind that a real photo folder may hold."""

from pathlib import Path

import numpy as np
from PIL import Image

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
