"""Images painted from their masks, so that each pixel's colour tells its class."""

import io

import numpy as np
from PIL import Image

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
