"""Images that are broken by chance: small sound ones of every kind, and what is done to them."""

import io
import itertools
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    """Draw smooth noise."""
    generator = np.random.Generator(np.random.PCG64(seed))
    coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Write an image in a format."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def animation(image_format: str) -> bytes:
    """Write three frames."""
    first, *others = (picture(seed=seed) for seed in range(3))
    return encoded(first, image_format, save_all=True, append_images=others, duration=40)


def rotated() -> bytes:
    """Write a JPEG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(), "JPEG", exif=exif)


def deep() -> Image.Image:
    """Draw 16-bit grey."""
    return Image.fromarray(np.asarray(picture().convert("L"), dtype=np.uint16) * 257)


def seeds() -> dict[str, dict[str, bytes]]:
    """Return the sound images that are mutated, by family and kind."""
    image = picture()
    translucent = image.copy()
    translucent.putalpha(image.convert("L"))
    strips = (picture(1, 600), picture(600, 1))
    return {
        "JPEG": {
            "plain": encoded(image, "JPEG", quality=85),
            "progressive": encoded(image, "JPEG", progressive=True),
            "grey": encoded(image.convert("L"), "JPEG"),
            "CMYK": encoded(image.convert("CMYK"), "JPEG"),
            "restarts": encoded(image, "JPEG", restart_marker_rows=1),
            "rotated": rotated(),
            "strips": encoded(strips[0], "JPEG"),
        },
        "PNG": {
            "plain": encoded(image, "PNG"),
            "palette": encoded(image.quantize(31), "PNG", transparency=3),
            "one bit": encoded(image.convert("1"), "PNG"),
            "16 bits": encoded(deep(), "PNG"),
            "translucent": encoded(translucent, "PNG"),
            "animated": animation("PNG"),
            "strips": encoded(strips[1], "PNG"),
        },
        "WebP": {
            "lossy": encoded(image, "WEBP", quality=70),
            "lossless": encoded(image, "WEBP", lossless=True),
            "translucent": encoded(translucent, "WEBP"),
            "animated": animation("WEBP"),
            "strips": encoded(strips[0], "WEBP"),
        },
    }


def pieces(data: bytes) -> list[bytes]:
    """Cut an image into its chunks or segments, so that they joined are the image again."""
    if data.startswith(SIGNATURE):
        return _cut(data, 8, lambda at: 12 + int.from_bytes(data[at : at + 4]))
    if data.startswith(b"RIFF"):
        return _cut(data, 12, lambda at: _riff_step(data, at))
    return _cut(data, 2, lambda at: _jpeg_step(data, at))


def _cut(data: bytes, at: int, step: Callable[[int], int]) -> list[bytes]:
    places = [0]
    while at < len(data):
        places.append(at)
        at += step(at)
    return [data[start:stop] for start, stop in itertools.pairwise([*places, len(data)])]


def _riff_step(data: bytes, at: int) -> int:
    """Return a chunk's length, which is even."""
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    return 8 + length + length % 2


def _jpeg_step(data: bytes, at: int) -> int:
    """Return a segment's length; a scan's pixels belong to it."""
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
    if data[at + 1] == 0xDA:
        while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
            end += 1
    return max(2, end - at) if data[at + 1] != 0xD9 else 2


def flip_bits(draw: random.Random, data: bytes) -> bytes:
    """Flip up to eight bits, anywhere."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def edit_header(draw: random.Random, data: bytes) -> bytes:
    """Overwrite up to four bytes near the start, often with extremes."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        changed[draw.randrange(min(len(data), 200))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x5A))
    return bytes(changed)


def cut_off(draw: random.Random, data: bytes) -> bytes:
    """End early."""
    return data[: draw.randrange(len(data))]


def append_junk(draw: random.Random, data: bytes) -> bytes:
    """Go on after the end, with noise or with the image itself."""
    return data + draw.choice((draw.randbytes(draw.randint(1, 300)), data))


def edit_piece(draw: random.Random, data: bytes) -> bytes:
    """Change bytes of one chunk or segment; a PNG's checksum is made to fit."""
    parts = pieces(data)
    number = draw.randrange(len(parts))
    changed = bytearray(parts[number])
    for _ in range(draw.randint(1, 6)):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    if data.startswith(SIGNATURE) and number and len(changed) >= 12:
        changed[-4:] = struct.pack(">I", zlib.crc32(changed[4:-4]))
    return b"".join([*parts[:number], bytes(changed), *parts[number + 1 :]])


def move_pieces(draw: random.Random, data: bytes) -> bytes:
    """Swap, double or leave out chunks or segments."""
    parts = pieces(data)
    for _ in range(draw.randint(1, 3)):
        one, other = draw.randrange(len(parts)), draw.randrange(len(parts))
        match draw.randrange(3):
            case 0:
                parts[one], parts[other] = parts[other], parts[one]
            case 1:
                parts.insert(one, parts[other])
            case 2 if len(parts) > 1:
                del parts[one]
    return b"".join(parts)


MUTATIONS = (flip_bits, edit_header, cut_off, append_junk, edit_piece, move_pieces)


def fuzzed(family: str, draw: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield mutated images of a family, each with a name: all kinds by all mutations in turn."""
    ways = itertools.product(seeds()[family].items(), MUTATIONS)
    for number, ((kind, data), mutate) in enumerate(itertools.islice(itertools.cycle(ways), count)):
        yield f"{number:05d} {kind}, {mutate.__name__}", mutate(draw, data)


def odd() -> Iterator[tuple[str, bytes]]:
    """Yield what is no fuzzed image but seldom comes: empty, disguised, thin, of odd modes."""
    sound = seeds()
    yield "empty", b""
    yield "a GIF", encoded(picture(), "GIF")
    yield "an animated GIF", animation("GIF")
    yield "a TIFF", encoded(picture(), "TIFF")
    yield "a BMP", encoded(picture(), "BMP")
    yield "text", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    for family, start in (("JPEG", 2), ("PNG", 8), ("WebP", 12)):
        for kind, data in sound[family].items():
            yield f"{family}: sound, {kind}", data
            yield f"{family}: the first bytes alone, {kind}", data[:start]
    for number in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        yield f"JPEG: orientation {number}", encoded(picture(), "JPEG", exif=exif)
    for image_format in ("JPEG", "PNG", "WEBP"):
        for size in ((1, 1), (1, 16000), (16000, 1)):
            yield f"{image_format}: {size[0]} x {size[1]}", encoded(picture(*size), image_format)
