"""Silhouettes of the demo's object classes, as polygons in the unit box, and their rasteriser.

A shape is a list of parts painted in order. A part is a closed outline in [-1, 1] (x right, y down)
and whether it adds to the silhouette or cuts a hole into it.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]

OVERSAMPLE = 2
"""Shapes are drawn this many times larger and averaged down, so that their edges are smooth."""


WHOLE = (0.0, 360.0)


class Part(NamedTuple):
    """One closed outline, (n, 2) float64, that is filled or cut out."""

    outline: Points
    solid: bool = True


def _polygon(*points: tuple[float, float]) -> Part:
    return Part(np.array(points, dtype=np.float64))


def _box(left: float, top: float, right: float, bottom: float) -> Part:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _ellipse(x: float, y: float, rx: float, ry: float, arc: tuple[float, float] = WHOLE) -> Part:
    """The arc of an ellipse between two angles in degrees, clockwise from the right."""
    angle = np.radians(np.linspace(*arc, 28))
    return Part(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1))


def _hole(part: Part) -> Part:
    return Part(part.outline, solid=False)


def _star() -> list[Part]:
    angle = np.radians(np.arange(10) * 36 - 90)
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [Part(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))]


def _heart() -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [Part(np.stack([x / 17, -(y + 2.5) / 15], axis=1))]


def _moon() -> list[Part]:
    outer = _ellipse(0.1, 0.0, 0.95, 0.95, (50, 310)).outline
    inner = _ellipse(0.45, 0.0, 0.78, 0.78, (290, 70)).outline
    return [Part(np.concatenate([outer, inner]))]


def _house() -> list[Part]:
    return [
        _box(0.35, -0.9, 0.6, -0.3),
        _box(-0.7, -0.1, 0.7, 0.9),
        _polygon((-0.95, -0.1), (0.0, -0.95), (0.95, -0.1)),
        _hole(_box(-0.5, 0.3, -0.1, 0.9)),
        _hole(_box(0.2, 0.15, 0.5, 0.45)),
    ]


def _tree() -> list[Part]:
    return [
        _box(-0.16, 0.5, 0.16, 0.98),
        _polygon((-0.8, 0.6), (0.0, -0.2), (0.8, 0.6)),
        _polygon((-0.62, 0.1), (0.0, -0.6), (0.62, 0.1)),
        _polygon((-0.45, -0.38), (0.0, -1.0), (0.45, -0.38)),
    ]


def _fish() -> list[Part]:
    return [
        _polygon((0.35, 0.0), (0.98, -0.55), (0.85, 0.0), (0.98, 0.55)),
        _polygon((-0.3, -0.35), (0.1, -0.75), (0.25, -0.3)),
        _ellipse(-0.22, 0.0, 0.76, 0.46),
        _hole(_ellipse(-0.6, -0.12, 0.1, 0.1)),
    ]


def _cup() -> list[Part]:
    return [
        _ellipse(0.5, -0.05, 0.48, 0.45),
        _hole(_ellipse(0.5, -0.05, 0.24, 0.22)),
        _polygon((-0.9, -0.7), (0.55, -0.7), (0.4, 0.75), (-0.75, 0.75)),
    ]


def _key() -> list[Part]:
    return [
        _box(-0.3, -0.13, 0.98, 0.13),
        _box(0.45, 0.1, 0.62, 0.5),
        _box(0.78, 0.1, 0.98, 0.42),
        _ellipse(-0.52, 0.0, 0.46, 0.5),
        _hole(_ellipse(-0.55, 0.0, 0.2, 0.22)),
    ]


def _mushroom() -> list[Part]:
    return [
        _polygon((-0.25, 0.0), (0.25, 0.0), (0.36, 0.95), (-0.36, 0.95)),
        _ellipse(0.0, 0.12, 0.95, 1.05, (180, 360)),
    ]


def _arrow() -> list[Part]:
    return [
        _polygon(
            (-0.95, -0.24), (0.1, -0.24), (0.1, -0.7), (0.98, 0.0),
            (0.1, 0.7), (0.1, 0.24), (-0.95, 0.24),
        )
    ]  # fmt: skip


def _umbrella() -> list[Part]:
    hook = [_ellipse(0.2, 0.72, 0.28, 0.26, (0, 180)).outline]
    hook.append(_ellipse(0.2, 0.72, 0.12, 0.11, (180, 0)).outline)
    canopy = _ellipse(0.0, 0.02, 0.98, 0.9, (180, 360)).outline
    scallops = [
        _ellipse(x, 0.02, 0.1633, 0.2, (360, 180)).outline for x in np.linspace(0.82, -0.82, 6)
    ]
    return [
        _box(-0.08, -0.98, 0.08, 0.72),
        Part(np.concatenate(hook)),
        Part(np.concatenate([canopy, *scallops])),
    ]


def _boat() -> list[Part]:
    return [
        _box(-0.06, -0.98, 0.06, 0.45),
        _polygon((0.1, -0.9), (0.85, 0.25), (0.1, 0.25)),
        _polygon((-0.1, -0.6), (-0.1, 0.25), (-0.65, 0.25)),
        _polygon((-0.98, 0.4), (0.98, 0.4), (0.62, 0.9), (-0.62, 0.9)),
    ]


_BUILDERS: dict[str, Callable[[], list[Part]]] = {
    "arrow": _arrow,
    "boat": _boat,
    "cup": _cup,
    "fish": _fish,
    "heart": _heart,
    "house": _house,
    "key": _key,
    "moon": _moon,
    "mushroom": _mushroom,
    "star": _star,
    "tree": _tree,
    "umbrella": _umbrella,
}

CLASSES = tuple(_BUILDERS)
"""Class names in label order: class k is named CLASSES[k] and has mask value k + 1."""


@cache
def parts(name: str) -> tuple[Part, ...]:
    """The parts of the shape of a class."""
    return tuple(_BUILDERS[name]())


def rasterise(
    name: str, transform: Points, offset: Points, size: int, line: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw a shape on a square canvas.

    Args:
        name: The class.
        transform: (2, 2) matrix from the unit box to pixels.
        offset: (2,) centre in pixels.
        size: Side of the canvas in pixels.
        line: Width of the outline in pixels.

    Returns:
        Coverage of the body and of the outline around its parts, each (size, size) float32 in 0..1.
    """
    body = Image.new("L", (size * OVERSAMPLE, size * OVERSAMPLE))
    edge = body.copy()
    draw_body, draw_edge = ImageDraw.Draw(body), ImageDraw.Draw(edge)
    width = max(1, round(line * OVERSAMPLE))
    for outline, solid in parts(name):
        pixels = (outline @ transform.T + offset) * OVERSAMPLE
        ring = [(float(x), float(y)) for x, y in pixels]
        draw_body.polygon(ring, fill=255 if solid else 0)
        draw_edge.polygon(ring, fill=0)  # a part hides the outlines of the parts under it
        draw_edge.line([*ring, ring[0]], fill=255, width=width, joint="curve")
    return _coverage(body), _coverage(edge)


def _coverage(canvas: Image.Image) -> NDArray[np.float32]:
    return np.asarray(canvas.reduce(OVERSAMPLE), dtype=np.float32) / np.float32(255)
