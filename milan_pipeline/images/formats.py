"""Which files hold pictures, and which of those are read: by their names, else by their bytes."""

from typing import Literal

from milan_pipeline.images.decode import JPEG_START, PNG_START

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
JPEG_NAMES = ("jfif", "jpe", "pjpeg", "pjp")
"""Other endings that JPEGs go by."""
OTHER_EXTENSIONS = (
    *("tif", "tiff", "bmp", "gif", "heic", "heif", "avif", "jp2", "j2k", "jxl", "ppm", "pgm"),
    *("pnm", "pbm", "exr", "hdr", "psd", "dcm"),
    *("dng", "cr2", "cr3", "nef", "arw", "raf", "rw2", "orf"),
)
"""Of pictures in formats that are not read."""
OTHER_STARTS = (
    *(b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\xff\x0a"),
    *(b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL "),
)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
HEAD_BYTES = 16
"""So many bytes from a file's start tell its format."""

Kind = Literal["image", "other", "none"]
"""An image that can be read, a picture of another format, or no picture."""


def kind_by_name(name: str) -> Kind:
    """Tell what a file should be by the ending of its name; capitals do not matter.

    Downloaders leave the query of a URL behind it: `a.jpg?size=large`.
    """
    _, dot, ending = name.rpartition("/")[2].rpartition(".")
    ending = ending.partition("?")[0].lower() if dot else ""
    if ending in IMAGE_EXTENSIONS or ending in JPEG_NAMES:
        return "image"
    return "other" if ending in OTHER_EXTENSIONS else "none"


def kind_by_bytes(head: bytes) -> Kind:
    """Tell what a file is by its first `HEAD_BYTES`."""
    is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    if head.startswith((JPEG_START, PNG_START)) or is_webp:
        return "image"
    is_heif = head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS
    return "other" if head.startswith(OTHER_STARTS) or is_heif else "none"
