"""What asks too much of a decoder is refused or left out; what does not is left as it is."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from milan_pipeline.errors import BadImageError
from milan_pipeline.images.decode import (
    PNG_START,
    decode_rgb,
    plain_png,
    probe_header,
    scans_of_jpeg,
)

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))


def encode(image, fmt, **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(*chunks, late=False):
    """A PNG with some chunks before its pixels, or after them."""
    data = encode(PICTURE, "PNG")
    at = -12 if late else len(PNG_START) + 25
    return data[:at] + b"".join(chunk(*each) for each in chunks) + data[at:]


def announced(*frames, late=False):
    return with_chunks(*((b"acTL", struct.pack(">II", each, 0)) for each in frames), late=late)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_scans_are_counted_where_there_may_be_several(mode):
    image = PICTURE.convert(mode)
    assert scans_of_jpeg(encode(image, "JPEG")) == 1
    assert scans_of_jpeg(encode(image, "JPEG", restart_marker_rows=1)) == 1
    progressive = encode(image, "JPEG", progressive=True)
    assert scans_of_jpeg(progressive) == progressive.count(b"\xff\xda") > 1


@pytest.mark.parametrize("length", [0, 2, 3, 5, 100, 162, 400])
def test_a_cut_off_header_is_no_trouble(length):
    assert scans_of_jpeg(encode(PICTURE, "JPEG")[:length]) == 1


def test_a_sequential_jpeg_may_have_a_scan_a_colour():
    """Its first scan said to be of one colour of three: a decoder would wait for more scans."""
    data = bytearray(encode(PICTURE, "JPEG"))
    data[data.index(b"\xff\xda") + 4] = 1
    assert scans_of_jpeg(bytes(data) + 3 * b"\xff\xda") == 4


def test_a_jpeg_of_endless_scans_is_refused_by_its_header():
    data = encode(PICTURE, "JPEG", progressive=True)
    endless = data[:-2] + 5000 * data[data.rindex(b"\xff\xda") : -2] + data[-2:]
    for read in (decode_rgb, probe_header):
        with pytest.raises(BadImageError, match=r"the JPEG has 5\d{3} scans, .* may have 4095"):
            read(endless)
    assert decode_rgb(data).shape == (24, 40, 3)


@pytest.mark.parametrize(
    "data",
    [announced(0), announced(2**31 + 1), announced(2, 2), announced(1, late=True),
     announced(0, late=True)],
)  # fmt: skip
def test_a_wrong_announcement_of_an_animation_is_left_out(data):
    """Pillow would warn, and take the picture that there is; warnings are errors here."""
    assert plain_png(data) == encode(PICTURE, "PNG")
    np.testing.assert_array_equal(decode_rgb(data), np.asarray(PICTURE))


@pytest.mark.parametrize("options", [{}, {"save_all": True, "append_images": [PICTURE] * 2}])
def test_a_sound_png_is_left_as_it_is(options):
    data = encode(PICTURE, "PNG", **options)
    assert plain_png(data) is data


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        (b"iCCP", b"icc\0\0" + zlib.compress(bytes(1_200_000))),
        (b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"tEXt", b"workflow\0" + b"x" * 2_000_000),
    ],
)
def test_no_pixel_depends_on_a_profile_or_text(words, late):
    """Pillow refuses an image for over a megabyte of them."""
    data = with_chunks(words, late=late)
    assert plain_png(data) == plain_png(encode(PICTURE, "PNG"))
    assert np.array_equal(decode_rgb(data), np.asarray(PICTURE))
    assert probe_header(data) == ("PNG", *PICTURE.size)


def test_damages_are_left_to_pillow():
    short = with_chunks((b"acTL", b"abc"))
    torn = announced(0)[:60]
    assert plain_png(short) is short
    for data in (short, torn):
        with pytest.raises(BadImageError):
            decode_rgb(data)


@pytest.mark.parametrize("left", [0, 1, 3])
def test_an_announcement_without_its_whole_checksum_does_not_warn(left: int) -> None:
    whole = announced(0)
    end = whole.index(b"acTL") + len("acTL") + 8
    torn = whole[: end + left]
    assert plain_png(torn) == whole[: whole.index(b"acTL") - 4]
    with pytest.raises(BadImageError):
        decode_rgb(torn)
