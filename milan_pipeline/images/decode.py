"""Image bytes to pixels: the first half of the ONE pixel path that teacher and student share.

A sound JPEG is decoded by simplejpeg, to the pixels that Pillow gives but in 0.7 of the time
(measured); all else by Pillow, which also says what is wrong with a damaged file. Imports no torch,
so that packing images, which only reads headers, starts at once. The second half (crop, resize,
flip) is `crops.py`.

Before anything is decoded, the bytes are searched for what makes decoders work without end: many
scans of a JPEG, extra chunks of a PNG.
"""

import contextlib
import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import simplejpeg
import xxhash
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from milan_pipeline.core.file_kinds import HEAD, stand_in
from milan_pipeline.errors import BadImageError, reason_of
from milan_pipeline.images.bit_depth import has_16_bits, may_probe, warn_if_dark

JPEG_START = b"\xff\xd8\xff"
MAX_PIXELS = 1024**3 // 4 // 3
"""Larger images (about 89 million pixels) are refused: Pillow's own limit for a likely attack."""
MAX_SCANNED = 12 * MAX_PIXELS
"""Pixels that all scans of a JPEG may pass over; the usual progressive one has ten scans."""


class _PlainJpegFile(JpegImageFile):
    """Pillow's JPEG reader without its look into EXIF, which warns on harmless broken metadata."""

    def _read_dpi_from_exif(self) -> None:
        """Skip it: it would only tell the resolution for printing."""


def decode_rgb(data: bytes, name: str = "") -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image as Pillow's `convert("RGB")` shows it.

    Alpha is dropped, the first frame of an animation is taken, and the EXIF orientation is ignored,
    as torchvision's `ImageFolder` does. Unlike there, 16-bit grey is scaled down (its high byte),
    not clipped to white; see `bit_depth` for the warning where that makes it almost black.

    Args:
        data: the bytes of the whole file.
        name: what a warning calls the image.

    Returns:
        The pixels, (H, W, 3), read-only.

    Raises:
        BadImageError: the bytes are no such image, lack pixels or are damaged so that Pillow
            notices, or hold more than `MAX_PIXELS` pixels or, of a JPEG, scans of
            more than `MAX_SCANNED` (both found before any pixel is decoded).
    """
    try:
        rgb = _sound_jpeg_rgb(data)
        if rgb is not None:
            return rgb
        with open_with_pillow(data) as image:
            if image.mode.startswith("I"):
                return rgb_of_16_bits(image, name)
            # Without this, Pillow warns that the transparency of a palette is lost: it should be.
            image.info.pop("transparency", None)
            rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
            if has_16_bits(data):  # of which Pillow gives the high byte
                warn_if_dark(256 * int(rgb.max()) + 255, name)
            return rgb
    except (BadImageError, MemoryError):  # a machine out of memory is no fault of the image
        raise
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        raise _unreadable(error) from error


def _sound_jpeg_rgb(data: bytes) -> NDArray[np.uint8] | None:
    """Decode a grey or colour JPEG without any fault; None leaves all others to Pillow.

    Both decode by libjpeg-turbo, but simplejpeg is `strict` at a fault, where Pillow judges which
    ones can be borne, and CMYK they turn into RGB differently.
    """
    if not data.startswith(JPEG_START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if colours not in ("Gray", "RGB", "YCbCr") or height * width > MAX_PIXELS:
            return None
        if scans_of_jpeg(data) * max(SMALL, height * width) > MAX_SCANNED:
            return None
        rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return None
    rgb.flags.writeable = False
    return rgb


def probe_header(data: bytes) -> tuple[str, int, int]:
    """Read format and size of an image from its header; no pixel is decoded.

    Args:
        data: the bytes of the whole file.

    Returns:
        ("JPEG" | "PNG" | "WEBP", width, height), in pixels.

    Raises:
        BadImageError: the bytes start as no such image, or promise more pixels or scans
            than `decode_rgb` takes.
    """
    try:
        with open_with_pillow(data) as image:
            return str(image.format), image.width, image.height
    except (BadImageError, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(error) from error


def probe_depth(data: bytes, name: str) -> None:
    """Warn early if a 16-bit image is almost black: decode it, if it is among the first of them."""
    if has_16_bits(data) and may_probe():
        with contextlib.suppress(BadImageError):
            decode_rgb(data, name)


def digest(data: bytes) -> int:
    """Hash the bytes of an image: xxh3-64, as an unsigned 64-bit integer."""
    return xxhash.xxh3_64_intdigest(data)


def open_with_pillow(data: bytes) -> ImageFile.ImageFile:
    """Open an image with Pillow, which reads its header alone.

    `Image.open` is avoided: it warns of a large image, and threads cannot catch warnings safely;
    and it parses the EXIF of every JPEG in search of further images.

    Raises:
        BadImageError: the image is too large, or a JPEG has too many scans.
    """
    reader = _reader_of(data)
    image = reader(BytesIO(plain_png(data) if reader is PngImageFile else data))
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"the image has {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS} "
            "that guards against decompression bombs; scale it down"
        )
    if isinstance(image, JpegImageFile):
        _require_few_scans(data, image.width * image.height)
    return image


def _require_few_scans(data: bytes, pixels: int) -> None:
    scans, most = scans_of_jpeg(data), MAX_SCANNED // max(SMALL, pixels)
    if scans > most:
        raise BadImageError(
            f"the JPEG has {scans} scans, and of its size may have {most}, which guards against "
            "files that take for ever; save it again"
        )


def _reader_of(data: bytes) -> type[ImageFile.ImageFile]:
    if data.startswith(JPEG_START):
        return _PlainJpegFile
    if data.startswith(PNG_START):
        return PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    kind = stand_in(data[:HEAD])
    raise BadImageError(
        f"the bytes start with {data[:12]!r}: no JPEG, PNG or WebP image; convert it to one"
        if kind is None
        else f"the image file {kind}"
    )


def rgb_of_16_bits(image: Image.Image, name: str = "") -> NDArray[np.uint8]:
    """Return the high byte of a grey image that Pillow has in 16 bits or more, (H, W, 3)."""
    grey = np.asarray(image)
    warn_if_dark(int(grey.max()), name)
    rgb = np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    rgb.flags.writeable = False
    return rgb


def _unreadable(error: Exception) -> BadImageError:
    return BadImageError(f"the image cannot be decoded ({reason_of(error)}); replace or remove it")


PNG_START = b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = b"\xff\xda"
SEQUENTIAL = (0xC0, 0xC1, 0xC9)
FRAMES = (*SEQUENTIAL, 0xC2, 0xCA)
MOST_FRAMES = 2**31
WORDS = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG with a colour profile or text."""
LEAST_ACTL = 8
"""Bytes that an announcement of an animation has to say; a shorter one is a damage."""
AROUND, CHECKSUM = 12, 4
"""Bytes of a chunk of a PNG beside its content: length, kind and checksum; and of the latter."""
SMALL = 2**18
"""A scan of fewer pixels costs as much as of so many."""


def scans_of_jpeg(data: bytes) -> int:
    """Return how many scans of the image a JPEG has: an upper bound, and at least 1.

    Counting takes a tenth of the time that decoding does, and is spared a JPEG whose first scan has
    all colours whole: decoders refuse a second one.
    """
    return 1 if _is_whole_in_one_scan(data) else max(1, data.count(START_OF_SCAN))


def _is_whole_in_one_scan(data: bytes) -> bool:
    colours = 0
    for marker, at in _segments(data):
        if marker in FRAMES:
            colours = data[at + 9] if marker in SEQUENTIAL and at + 9 < len(data) else 0
        if marker == START_OF_SCAN[1]:
            return at + 4 < len(data) and 0 < colours == data[at + 4]
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and place of each segment of a JPEG's header, while they follow one another."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and 0xC0 <= data[at + 1] < 0xFF:
        yield data[at + 1], at
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def plain_png(data: bytes) -> bytes:
    """Return a PNG without what does nothing for its first frame, but warns or may take long.

    That is the announcement of an animation unless there is one, sound and in time; and colour
    profiles and texts: no pixel depends on them, each may unfold to megabytes, and Pillow refuses
    the whole image for a large one. The rest is left as it is, damages included.
    """
    found: dict[str, list[tuple[int, int]]] = {"early": [], "late": [], "words": []}
    when = "early"
    for kind, at, length in chunks(data):
        if kind == b"IDAT":
            when = "late"
        elif kind == b"acTL" and length >= LEAST_ACTL:
            found[when].append((at, at + AROUND + length))
        elif kind in WORDS:
            found["words"].append((at, at + AROUND + length))
    early = found["early"]
    if len(early) == 1 and 0 < _frames_at(data, early[0][0]) <= MOST_FRAMES:
        early = []
    kept, start = [], 0
    for at, end in sorted([*early, *found["late"], *found["words"]]):
        kept.append(data[start:at])
        start = end
    return b"".join([*kept, data[start:]]) if kept else data


def _frames_at(data: bytes, announcement: int) -> int:
    return int.from_bytes(data[announcement + 8 : announcement + 12])


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and length of the content of each chunk of a PNG.

    The last one may lack its checksum: decoders look at the content before that.
    """
    at = len(PNG_START)
    while at + AROUND <= len(data) + CHECKSUM:
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + AROUND + length > len(data) + CHECKSUM:
            return
        yield kind, at, length
        at += AROUND + length
