"""Changes of a view's colours: drawn as numbers, and replayed from them to the last bit.

As users of DINO (arXiv 2104.14294) and SimCLR (2002.05709) have them: jitter of brightness,
contrast, saturation and hue, grey, blur, and solarise. Pixels are computed in integers, so that
they are the same on every machine. Unlike in torchvision, the order of the four jitters is fixed,
hue turns around the grey axis of YIQ, and colours are cut to 0..255 once, after all of them.

Legend: C = 3 channels, S side of a view.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.keyed_random import keyed_generator

KINDS = ("jitter", "grey", "blur", "solarise")
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
"""The most that jitter changes: factors from 1, and hue in turns. (DINO.)"""
BLUR = 0.1, 2.0
"""Bounds of the blur's standard deviation, in 224ths of the view's side. (DINO, at 224 pixels.)"""
BLUR_SIDE = 224
THRESHOLD = 128
"""Solarise inverts values from here on."""
LUMA = 0.299, 0.587, 0.114
TO_YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
COLOUR_BITS, KERNEL_BITS, BETWEEN_BITS = 14, 12, 8
"""Bits after the point: of colours' matrix, of the blur's weights, of values between its passes."""


class ColourChange(NamedTuple):
    """The numbers of one view, each representable as float32; the defaults change nothing.

    Attributes:
        brightness: factor.
        contrast: factor, around the mean grey of the view.
        saturation: factor, around each pixel's grey.
        hue: turns.
        grey: 1 for a view without colours.
        blur: standard deviation, in 224ths of the view's side; 0 for none.
        solarise: 1 for a view whose bright values are inverted.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    solarise: float = 0.0


def draw_colours(
    probabilities: Mapping[str, float], *, seed: int, key: str, view: int
) -> ColourChange:
    """Draw the changes of one view, the same on every call and machine.

    Args:
        probabilities: of each of `KINDS`; one that is not there is 0.
        seed: the run's seed for views.
        key: names the sample.
        view: number of the view, from 0.
    """
    jitter, bright, contrast, saturated, hue, grey, blur, sigma, solarise = (
        keyed_generator("colours", seed, key, view).random(9).tolist()
    )
    change = ColourChange()
    if jitter < probabilities.get("jitter", 0):
        change = change._replace(
            brightness=1 + BRIGHTNESS * (2 * bright - 1),
            contrast=1 + CONTRAST * (2 * contrast - 1),
            saturation=1 + SATURATION * (2 * saturated - 1),
            hue=HUE * (2 * hue - 1),
        )
    change = change._replace(
        grey=float(grey < probabilities.get("grey", 0)),
        blur=BLUR[0] + (BLUR[1] - BLUR[0]) * sigma if blur < probabilities.get("blur", 0) else 0.0,
        solarise=float(solarise < probabilities.get("solarise", 0)),
    )
    return ColourChange(*np.array(change, np.float32).tolist())


def changed_colours(view_CSS: NDArray[np.uint8], change: ColourChange) -> NDArray[np.uint8]:
    """Apply the changes to a view (3, S, S), in their order."""
    if change[:5] != ColourChange()[:5]:
        view_CSS = _recoloured(view_CSS, change)
    if change.blur:
        view_CSS = _blurred(view_CSS, change.blur * view_CSS.shape[-1] / BLUR_SIDE)
    if change.solarise:
        view_CSS = np.where(view_CSS >= THRESHOLD, 255 - view_CSS, view_CSS)
    return view_CSS


def _recoloured(view_CSS: NDArray[np.uint8], change: ColourChange) -> NDArray[np.uint8]:
    """Apply jitter and grey: together they are one matrix, and a shift by the mean grey."""
    grey_CC = np.tile(LUMA, (3, 1))
    saturation_CC = change.saturation * np.eye(3) + (1 - change.saturation) * grey_CC
    cosine, sine = math.cos(2 * math.pi * change.hue), math.sin(2 * math.pi * change.hue)
    turn_CC = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix_CC = np.linalg.inv(TO_YIQ) @ turn_CC @ TO_YIQ @ saturation_CC
    if change.grey:
        matrix_CC = grey_CC @ matrix_CC
    sums_C = view_CSS.sum(axis=(1, 2), dtype=np.int64) / view_CSS[0].size
    mean = change.brightness * float(LUMA @ sums_C)
    factor = change.brightness * change.contrast * 2**COLOUR_BITS
    weights = np.rint(matrix_CC * factor).astype(np.int32)
    shift = round((1 - change.contrast) * mean * 2**COLOUR_BITS) + 2 ** (COLOUR_BITS - 1)
    wide_CSS = view_CSS.astype(np.int32)
    rows = [sum(w * channel for w, channel in zip(row, wide_CSS, strict=True)) for row in weights]
    found_CSS = (np.stack(rows) + np.int32(shift)) >> COLOUR_BITS
    return found_CSS.clip(0, 255).astype(np.uint8)


def _blurred(view_CSS: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    """Blur by a Gaussian of so many pixels, cut at three deviations; edges are repeated."""
    reach = math.ceil(3 * deviation)
    weights = [math.exp(-0.5 * (at / deviation) ** 2) for at in range(-reach, reach + 1)]
    whole = [round(weight / sum(weights) * 2**KERNEL_BITS) for weight in weights]
    whole[reach] += 2**KERNEL_BITS - sum(whole)
    values = view_CSS.astype(np.int32)
    for axis, bits in ((1, KERNEL_BITS - BETWEEN_BITS), (2, KERNEL_BITS + BETWEEN_BITS)):
        values = (_weighted(values, whole, axis) + 2 ** (bits - 1)) >> bits
    return values.astype(np.uint8)


def _weighted(values: NDArray[np.int32], weights: Sequence[int], axis: int) -> NDArray[np.int32]:
    """Add up each value's neighbours along an axis by their weights, which are symmetric."""
    reach, size = len(weights) // 2, values.shape[axis]
    wide = np.pad(values, [(reach * (axis == at),) * 2 for at in range(3)], mode="edge")
    shifted = [wide[(slice(None),) * axis + (slice(at, at + size),)] for at in range(len(weights))]
    total = weights[reach] * values
    pair = np.empty_like(values)
    for at in range(reach):  # two at a time, which halves the multiplications
        np.add(shifted[at], shifted[-1 - at], out=pair)
        pair *= weights[at]
        total += pair
    return total
