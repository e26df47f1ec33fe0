"""Makes the gallery: of each sampled view its pixels, prior, masks and target colours.

Pictures are data URIs: views are small JPEGs, values of patches are PNGs with a pixel a patch.

Legend: n views, L patches, D target width, H, W rows and columns of patches, S side of a view in
pixels.
"""

import base64
import dataclasses
import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from milan_pipeline.codecs.colours import TokenColours
from milan_pipeline.codecs.spectrum import directions
from milan_pipeline.images.colour_changes import ColourChange
from milan_pipeline.images.views import box_of
from milan_pipeline.pretraining.masking import kept_count, sample_kept
from milan_pipeline.report.target_rows import TargetRows

RATIOS = (0.4, 0.6, 0.75, 0.9)
LARGEST_SIDE = 224


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One view as the page shows it.

    Attributes:
        key: of its sample.
        source: stem of its image shard.
        view: its number.
        crop: what of the image it is.
        pixels: data URI, or None where there are no images.
        prior: data URI of the mask prior.
        most_attended: the patch that the prior likes best: row and column, from 1.
        masks: data URI by mask ratio.
        colours: data URI of the targets' first three principal components.
    """

    key: str
    source: str
    view: int
    crop: str
    pixels: str | None
    prior: str
    most_attended: tuple[int, int]
    masks: dict[float, str]
    colours: str


def view_side(grid: tuple[int, int]) -> int:
    """Return the side at which views are shown: whole pixels a patch, `LARGEST_SIDE` at most."""
    return max(1, LARGEST_SIDE // max(grid)) * max(grid)


def fitting_ratios(patches: int) -> list[float]:
    """Return the mask ratios that keep at least one of so many patches."""
    return [ratio for ratio in RATIOS if int(patches * (1 - ratio)) >= 1]


def token_colours(patches_nLD: torch.Tensor) -> TokenColours | None:
    """Find the colours of the directions of patches; None for fewer than three components."""
    flat = directions(patches_nLD.flatten(0, 1)).numpy()
    return TokenColours(flat) if min(flat.shape) >= 3 else None


def entries(
    rows: TargetRows, views: Sequence[NDArray[np.uint8]] | None, *, seed: int
) -> list[Entry]:
    """Make the gallery.

    Args:
        rows: the views' targets.
        views: their pixels (S, S, 3), or None.
        seed: of the masks.
    """
    patches_nLD = rows.tokens_nND[:, 1:]
    colours = token_colours(patches_nLD)
    return [
        _entry(rows, number, None if views is None else views[number], colours, seed)
        for number in range(len(rows))
    ]


def _entry(
    rows: TargetRows,
    number: int,
    pixels: NDArray[np.uint8] | None,
    colours: TokenColours | None,
    seed: int,
) -> Entry:
    prior_L, record, grid = rows.prior_nL[number], rows.records[number], rows.grid
    ratios = fitting_ratios(len(prior_L))
    best = divmod(int(prior_L.argmax()), grid[1])
    return Entry(
        key=rows.key[number],
        source=rows.source[number],
        view=rows.view[number],
        crop=_crop(record),
        pixels=None if pixels is None else jpeg_uri(pixels),
        prior=heat_uri(prior_L.reshape(grid)),
        most_attended=(best[0] + 1, best[1] + 1),
        masks={ratio: _mask(prior_L, ratio, grid, seed, rows.key[number]) for ratio in ratios},
        colours=_coloured(rows.tokens_nND[number, 1:], colours, grid),
    )


def _crop(record: NDArray[np.void]) -> str:
    box = box_of(record["box"].tolist(), flip=bool(record["flip"]))
    flipped = ", flipped" if box.flip else ""
    recoloured = ", in other colours" if box.colours not in (None, ColourChange()) else ""
    return f"{box.width} by {box.height} pixels from {box.left}, {box.top}{flipped}{recoloured}"


def _mask(
    prior_L: NDArray[np.float32], ratio: float, grid: tuple[int, int], seed: int, key: str
) -> str:
    kept_K, _ = sample_kept(prior_L, kept_count(len(prior_L), ratio), seed=seed, epoch=0, key=key)
    return mask_uri(kept_K, grid)


def _coloured(patches_LD: torch.Tensor, colours: TokenColours | None, grid: tuple[int, int]) -> str:
    direction_LD = directions(patches_LD).numpy()
    black_L3 = np.zeros((len(direction_LD), 3), np.float32)
    found_L3 = black_L3 if colours is None else colours(direction_LD)
    return colours_uri(found_L3.reshape(*grid, 3))


JPEG_QUALITY = 80
HEAT = mpl.colormaps["viridis"]
"""Even to the colour-blind, and readable in grey."""
MASKED = (24, 24, 27, 225)


def jpeg_uri(pixels_SSC: NDArray[np.uint8]) -> str:
    """Return a view (S, S, 3) as a JPEG."""
    return _uri(Image.fromarray(pixels_SSC), "JPEG", quality=JPEG_QUALITY, optimize=True)


def heat_uri(values_HW: NDArray[np.float32], ends: tuple[float, float] | None = None) -> str:
    """Return values as colours from dark to bright.

    Args:
        values_HW: finite.
        ends: what is darkest and what brightest; None takes the values' own least and most.
    """
    low, high = ends or (float(values_HW.min()), float(values_HW.max()))
    scaled = ((values_HW - low) / (high - low if high > low else 1)).clip(0, 1)
    return _png((255 * HEAT(scaled)[..., :3]).round().astype(np.uint8))


def colours_uri(colours_HW3: NDArray[np.float32]) -> str:
    """Return colours within 0..1."""
    return _png((255 * colours_HW3).round().astype(np.uint8))


def mask_uri(kept_K: NDArray[np.int64], grid: tuple[int, int]) -> str:
    """Return a cover with holes where patches are kept."""
    cover = np.full((grid[0] * grid[1], 4), MASKED, dtype=np.uint8)
    cover[kept_K, 3] = 0
    return _png(cover.reshape(*grid, 4))


def _png(pixels: NDArray[np.uint8]) -> str:
    return _uri(Image.fromarray(pixels), "PNG", optimize=True)


def _uri(image: Image.Image, form: str, **settings: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{data}"
