"""Pictures as data URIs: views as small JPEGs, values of patches as PNGs of a pixel a patch.

Legend: H, W rows and columns of patches; S side of a view in pixels.
"""

import base64
import io

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
