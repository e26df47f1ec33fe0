"""One scene as a pure function of (seed, split, index): pixels, class mask, caption, label."""

from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workflows.demo.captions import caption
from workflows.demo.layout import Layout, Thing
from workflows.demo.paint import (
    INK,
    PALETTE,
    TEXTURES,
    background,
    background_colours,
    jitter,
    texture,
)
from workflows.demo.shapes import CLASSES, rasterise

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
SIZE = 96
"""Side of a scene in pixels."""


class Scene(NamedTuple):
    """A painted scene."""

    pixels: NDArray[np.uint8]  # (SIZE, SIZE, 3)
    mask: NDArray[np.uint8]  # (SIZE, SIZE): 0 background, 1 + class
    label: int
    caption: str


def scene(seed: int, split: Split, index: int) -> Scene:
    """Scene `index` of a split. Classes alternate, so consecutive scenes are balanced."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    label = index % len(CLASSES)
    layout = _layout(CLASSES[label], rng)
    pixels, mask = _paint(layout, rng)
    return Scene(pixels, mask, label, caption(layout, rng))


def _thing(name: str, centre: tuple[float, float], scale: float, rng: np.random.Generator) -> Thing:
    colour = list(PALETTE)[rng.integers(len(PALETTE))]
    return Thing(name, colour, TEXTURES[rng.integers(len(TEXTURES))], centre, scale)


def _layout(name: str, rng: np.random.Generator) -> Layout:
    x, y = rng.uniform(0.37, 0.63, 2)
    main = _thing(name, (x, y), rng.uniform(0.24, 0.37), rng)
    others = []
    for _ in range(rng.integers(0, 4)):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.52)
        centre = (0.5 + distance * np.cos(angle), 0.5 + distance * np.sin(angle))
        other = CLASSES[rng.integers(len(CLASSES))]
        others.append(_thing(other, centre, rng.uniform(0.11, 0.17), rng))
    backdrop = TEXTURES[rng.integers(len(TEXTURES))]
    in_front = int(rng.integers(0, len(others) + 1))
    return Layout(main, others, in_front, backdrop, background_colours(main.colour, rng))


def _paint(layout: Layout, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    canvas = background(*layout.backdrop_colours, layout.backdrop, SIZE, rng)
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    front, behind = layout.others[: layout.in_front], layout.others[layout.in_front :]
    for thing in [*behind, layout.main, *front]:
        canvas = _add(thing, canvas, mask, rng)
    canvas += rng.normal(0, rng.uniform(2, 8), (SIZE, SIZE, 1)).astype(np.float32)
    return canvas.clip(0, 255).astype(np.uint8), mask


def _add(
    thing: Thing, canvas: NDArray[np.float32], mask: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Paint a thing over the canvas, which is returned, and into the mask, which is changed."""
    body, edge = rasterise(
        thing.name, _transform(thing.scale * SIZE, rng), np.array(thing.centre) * SIZE, SIZE,
        line=rng.uniform(1.7, 2.7),
    )  # fmt: skip
    colour = jitter(thing.colour, rng)
    fill = colour + 28 * texture(thing.texture, SIZE, rng)[..., None]
    ink = np.array(INK, dtype=np.float32)
    canvas = canvas + body[..., None] * (fill - canvas)
    mask[np.maximum(body, edge) > 0.5] = 1 + CLASSES.index(thing.name)
    return canvas + edge[..., None] * (ink - canvas)


def _transform(scale: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotation within 25 degrees after a mild stretch and, half the time, a mirror image."""
    angle = np.radians(rng.uniform(-25, 25))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = scale * np.exp(rng.uniform(-0.15, 0.15, 2))
    stretch[0] *= rng.choice([-1.0, 1.0])
    return rotation * stretch


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """The JPEG file of a scene."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def decoded_scene(index: int, seed: int, split: Split) -> tuple[NDArray[np.uint8], int, str]:
    """Pixels (3, SIZE, SIZE) after JPEG compression, label and caption of a scene."""
    drawn = scene(seed, split, index)
    pixels = np.asarray(Image.open(BytesIO(encode_jpeg(drawn.pixels))))
    return pixels.transpose(2, 0, 1), drawn.label, drawn.caption
