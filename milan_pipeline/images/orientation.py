"""How a viewer would turn an image, by its EXIF: the pixels that we decode are not turned."""

import struct
from typing import Any

from milan_pipeline.images.decode import open_with_pillow

UPRIGHT = 1
ORIENTATION, SHORT = 0x0112, 3
MARK = b"Exif\0\0"
MOST_FIELDS = 256
"""A camera's first directory has a dozen; more are not looked at."""


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
