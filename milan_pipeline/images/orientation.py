"""How a viewer would turn an image, by its EXIF: what we decode is turned only where it is packed.

`upright` makes the bytes of a turned image, so that whoever reads a shard sees the same.
"""

import io
import struct
from typing import Any

from PIL import JpegImagePlugin
from PIL.Image import Transpose

from milan_pipeline.errors import BadImageError, reason_of
from milan_pipeline.images.decode import open_with_pillow

UPRIGHT = 1
ORIENTATION, SHORT = 0x0112, 3
MARK = b"Exif\0\0"
MOST_FIELDS = 256
"""A camera's first directory has a dozen; more are not looked at."""
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What makes an image of each orientation upright."""
SWAPS_SIDES = (5, 6, 7, 8)
FULL_COLOUR = 0
"""Of a JPEG: colours are as finely sampled as brightness."""


def orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG, PNG or WebP image, 1 to 8.

    Args:
        data: the bytes of the whole file.

    Returns:
        1, which is upright, also where there is none or the EXIF is damaged.
    """
    try:
        with open_with_pillow(data) as image:
            return _orientation_in(image.info.get("exif"))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whoever decodes it says what is wrong
        return UPRIGHT


def _orientation_in(exif: Any) -> int:
    """Read the field of the first directory of a TIFF, as EXIF is one."""
    tiff = exif.removeprefix(MARK) if isinstance(exif, bytes) else b""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return UPRIGHT
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    for number in range(min(count, MOST_FIELDS)):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at + 2 + 12 * number)
        if tag == ORIENTATION and kind == SHORT and 1 <= value <= 8:
            return int(value)
    return UPRIGHT


def upright(data: bytes) -> bytes:
    """Return an image as viewers show it.

    An upright one is returned as it is. A JPEG that is turned is compressed as it was, by the same
    tables, and so loses little; others lose nothing. Metadata and further frames are left
    out.

    Args:
        data: the bytes of the whole file.

    Raises:
        BadImageError: it has to be turned, but cannot be decoded.
    """
    number = orientation(data)
    if number == UPRIGHT:
        return data
    try:
        with open_with_pillow(data) as image:
            turned = image.transpose(TURNS[number])
            # Which colours of a PNG are transparent is among the metadata for Pillow.
            turned.info = {k: v for k, v in image.info.items() if k == "transparency"}
            buffer = io.BytesIO()
            turned.save(buffer, image.format, **_compression(image, number))
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        raise BadImageError(
            f"the image cannot be turned as its EXIF says ({reason_of(error)}); replace it"
        ) from error
    return buffer.getvalue()


def _compression(image: Any, number: int) -> dict[str, Any]:
    """Return how an image is to be saved once it is turned."""
    if image.format != "JPEG":
        # PNG is without loss, WebP may be; `exact` keeps the colours below transparent pixels.
        return {"lossless": True, "exact": True}
    sampling, tables = JpegImagePlugin.get_sampling(image), image.quantization
    if number in SWAPS_SIDES:
        tables = {key: _transposed(table) for key, table in tables.items()}
        sampling = sampling if sampling in (0, 2) else FULL_COLOUR
    return {"qtables": tables, "subsampling": sampling if sampling >= 0 else FULL_COLOUR}


def _transposed(table: list[int]) -> list[int]:
    """Swap rows and columns of the 64 divisors of a JPEG's blocks."""
    return [table[8 * column + row] for row in range(8) for column in range(8)]
