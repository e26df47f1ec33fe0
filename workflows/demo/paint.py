"""Colours, textures and backgrounds of the demo's scenes."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]

INK = (20, 18, 24)
"""Every object is outlined in this colour, as in a children's book: a shape cue of one sign."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 220, 60),
    "green": (45, 145, 60),
    "blue": (55, 100, 225),
    "cyan": (80, 205, 220),
    "purple": (140, 60, 175),
    "pink": (245, 160, 190),
    "brown": (150, 95, 50),
    "white": (240, 240, 235),
    "gray": (150, 150, 150),
}

TEXTURES = ("plain", "striped", "dotted", "checkered", "wavy", "speckled", "cloudy")

CONTRAST = 35.0
"""Least difference in brightness (0..255) between the main object and the background."""


def brightness(colour: tuple[int, int, int]) -> float:
    """Perceived brightness of an RGB colour, 0..255."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def jitter(colour: str, rng: np.random.Generator) -> Field:
    """A palette colour, slightly changed: (3,) float32 in 0..255."""
    return (np.array(PALETTE[colour]) + rng.uniform(-16, 16, 3)).clip(0, 255).astype(np.float32)


def background_colours(main: str, rng: np.random.Generator) -> tuple[str, str]:
    """Two colours, both clearly brighter or both clearly darker than the main object's."""
    gaps = {name: brightness(rgb) - brightness(PALETTE[main]) for name, rgb in PALETTE.items()}
    sides = [[name for name, gap in gaps.items() if sign * gap > CONTRAST] for sign in (-1, 1)]
    side = [names for names in sides if names]
    names = side[rng.integers(len(side))]
    return names[rng.integers(len(names))], names[rng.integers(len(names))]


def texture(kind: str, size: int, rng: np.random.Generator) -> Field:
    """A pattern as (size, size) float32 in -1..1, with random period, angle and phase."""
    if kind == "plain":
        return np.zeros((size, size), dtype=np.float32)
    if kind == "speckled":
        return rng.uniform(-1, 1, (size, size)).astype(np.float32)
    if kind == "cloudy":
        return clouds(size, int(rng.integers(4, 9)), rng)
    angle, period = rng.uniform(0, np.pi), rng.uniform(7, 16)
    phase_u, phase_v = rng.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:size, :size].astype(np.float32) * (2 * np.pi / period)
    u: Field = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) + np.float32(phase_u)
    v: Field = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle)) + np.float32(phase_v)
    pattern: Field
    if kind == "striped":
        pattern = np.sign(np.sin(u))
    elif kind == "wavy":
        pattern = np.sin(u + 1.5 * np.sin(v / 2))
    elif kind == "checkered":
        pattern = np.sign(np.sin(u) * np.sin(v))
    else:  # dotted
        pattern = np.where(np.sin(u) + np.sin(v) > 0.8, np.float32(1), np.float32(-1))
    return pattern


def clouds(size: int, cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise with about `cells` bumps a side: (size, size) float32 in -1..1."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)).clip(-1, 1)


def background(first: str, second: str, kind: str, size: int, rng: np.random.Generator) -> Field:
    """A busy background between two colours: (size, size, 3) float32 in 0..255."""
    blend = 0.5 * texture(kind, size, rng) + 0.5 * clouds(size, int(rng.integers(2, 5)), rng)
    for _ in range(rng.integers(0, 5)):
        top, left = rng.integers(0, size - 8, 2)
        height, width = rng.integers(6, size // 2, 2)
        blend[top : top + height, left : left + width] += rng.uniform(-0.7, 0.7)
    weight = ((blend + 1) / 2).clip(0, 1)[..., None]
    canvas: Field = jitter(first, rng) * weight + jitter(second, rng) * (1 - weight)
    return canvas
