"""16-bit pictures that are almost black are warned of, once."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from milan_pipeline.images import bit_depth as depth
from milan_pipeline.images.decode import decode_rgb, probe_depth


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    depth.seen.cache_clear()


def grey_png(largest: int) -> bytes:
    grey = np.linspace(0, largest, 12 * 10).astype(np.uint16).reshape(12, 10)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def colour_png(high_byte: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads but does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    rows = (b"\0" + bytes([high_byte, 7]) * 3 * 4) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(("bits", "factor"), [(8, 256), (10, 64), (12, 16), (14, 4)])
def test_fewer_bits_are_named_with_the_factor_that_helps(
    bits: int, factor: int, caplog: pytest.LogCaptureFixture
) -> None:
    decode_rgb(grey_png(2**bits - 1), "xray/1")
    decode_rgb(grey_png(2**bits - 1), "xray/2")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for words in ("'xray/1'", f"above {2**bits - 1} of", f"multiply their values by {factor} "):
        assert words in record.getMessage()
    bright = decode_rgb(grey_png((2**bits - 1) * factor))
    assert bright.max() == 255  # the remedy


@pytest.mark.parametrize("largest", [0, 2**14, 2**16 - 1])
def test_full_range_and_black_are_taken_as_they_are(
    largest: int, caplog: pytest.LogCaptureFixture
) -> None:
    decode_rgb(grey_png(largest), "full")
    assert not caplog.records


def test_colours_of_16_bits_are_looked_at_too(caplog: pytest.LogCaptureFixture) -> None:
    assert decode_rgb(colour_png(200)).max() == 200
    assert not caplog.records
    assert decode_rgb(colour_png(15), "slide").max() == 15
    assert "'slide' has no value above 4095" in caplog.text


def test_pictures_of_8_bits_may_be_dark(caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 3).save(buffer, "PNG")
    decode_rgb(buffer.getvalue(), "night")
    assert not caplog.records


def test_packing_looks_at_the_first_alone(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(depth.MOST_PROBED):
        probe_depth(grey_png(65535), "bright")
    probe_depth(grey_png(4095), "late")
    assert not caplog.records


def test_packing_says_nothing_of_a_torn_picture(caplog: pytest.LogCaptureFixture) -> None:
    probe_depth(grey_png(4095)[:-30], "torn")  # it has its own word on that
    assert not caplog.records
    probe_depth(grey_png(4095), "dark")
    assert "'dark'" in caplog.text
