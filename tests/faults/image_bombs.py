"""Small files that ask for much: declared sizes, streams that unfold, scans without end."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.faults.fuzzed_images import SIGNATURE, encoded, picture

MEGABYTE = 2**20


def png(*chunks: tuple[bytes, bytes], width: int = 48, height: int = 40) -> bytes:
    """Write a PNG of 8-bit grey with some chunks between header and pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + width) * height) if width * height < MEGABYTE else b"")
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return SIGNATURE + b"".join(map(_chunk, parts))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    kind, body = part
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bombs() -> Iterator[tuple[str, bytes]]:
    """Yield PNGs."""
    zeros = zlib.compress(bytes(64 * MEGABYTE), 9)
    small = zlib.compress(bytes(MEGABYTE - 1), 9)
    profile, text = b"icc\0\0" + zeros, b"a\0\0" + zeros
    international = b"a\0\1\0\0\0" + zeros
    for width, height in ((2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (10**5, 10**5), (9000, 9000)):
        yield f"PNG: declared as {width} x {height}", png(width=width, height=height)
    for name, chunk in (
        ("iCCP", (b"iCCP", profile)), ("zTXt", (b"zTXt", text)), ("iTXt", (b"iTXt", international)),
    ):  # fmt: skip
        yield f"PNG: {name} of 64 MB", png(chunk)
        yield f"PNG: ten times {name} of 64 MB", png(*[chunk] * 10)
    yield "PNG: 5,000 times iCCP of 1 MB", png(*[(b"iCCP", b"icc\0\0" + small)] * 5000)
    yield "PNG: 5,000 times zTXt of 1 MB", png(*[(b"zTXt", b"a\0\0" + small)] * 5000)
    yield "PNG: 200,000 chunks", png(*[(b"abCd", b"")] * 200_000)
    whole = png()
    body = SIGNATURE + _chunk((b"IHDR", struct.pack(">IIBBBBB", 48, 40, 8, 0, 0, 0, 0)))
    yield "PNG: pixels of 64 MB", body + _chunk((b"IDAT", zeros)) + _chunk((b"IEND", b""))
    for frames in (0, 2**32 - 1):
        control = (b"acTL", struct.pack(">II", frames, 0))
        yield f"APNG: {frames} frames", png(control)
        late = whole[:-12] + _chunk(control) + whole[-12:]
        yield f"APNG: {frames} frames, said after the pixels", late
    twice = (b"acTL", struct.pack(">II", 2, 0))
    yield "APNG: announced twice", png(twice, twice)


def jpeg_bombs() -> Iterator[tuple[str, bytes]]:
    """Yield JPEGs."""
    for side, scans in ((9000, 100), (2000, 2000), (256, 50_000), (8, 100_000)):
        data = encoded(Image.new("RGB", (side, side), (90, 120, 40)), "JPEG", progressive=True)
        last = data[data.rindex(b"\xff\xda") : -2]
        yield f"JPEG: {side} pixels square, {scans} scans", data[:-2] + last * scans + data[-2:]
    plain = encoded(picture(), "JPEG")
    frame = plain.index(b"\xff\xc0")
    for sides in (0xFFFFFFFF, 0x2FFF2FFF, 0xFFFF0001):
        size = struct.pack(">I", sides)
        yield f"JPEG: declared as {sides:08x}", plain[: frame + 5] + size + plain[frame + 9 :]
    comment = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
    yield "JPEG: 500 comments", plain[:2] + comment * 500 + plain[2:]


def webp_bombs() -> Iterator[tuple[str, bytes]]:
    """Yield WebPs."""
    image = encoded(Image.new("RGB", (64, 64)), "WEBP", lossless=True)[12:]
    frame = bytes(6) + 2 * (63).to_bytes(3, "little") + bytes(4) + image
    animated = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    animated += b"ANMF" + struct.pack("<I", len(frame)) + frame
    for width, height in ((2**24, 2**24), (16384, 16384), (9000, 9900), (64, 64)):
        canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        for flags, kind, body in ((0, "still", image), (2, "animated", animated)):
            extended = b"VP8X" + struct.pack("<I", 10) + bytes([flags]) + canvas[1:]
            yield f"WebP: {kind}, canvas of {width} x {height}", _riff(extended + body)
    pixels = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(5)
    yield "WebP: lossless, declared as 16384 x 16384", _riff(pixels)
    sound = encoded(picture(), "WEBP")
    yield "WebP: 20,000 unknown chunks", _riff(sound[12:] + (b"ABCD" + bytes(4)) * 20_000)
    flat = encoded(Image.new("RGB", (9000, 9900)), "WEBP", method=0)
    yield "WebP: 89 million pixels of one colour", flat


def _riff(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield all of them, each with a name."""
    yield from png_bombs()
    yield from jpeg_bombs()
    yield from webp_bombs()
