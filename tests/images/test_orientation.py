"""The orientation that EXIF gives an image, and EXIF that gives none."""

import io

import pytest
from PIL import Image

from milan_pipeline.images.orientation import orientation

PICTURE = Image.new("RGB", (8, 6))


def encoded(form, number=None, order="<"):
    exif = Image.Exif()
    exif.endian = order
    if number is not None:
        exif[0x0112] = number
    file = io.BytesIO()
    PICTURE.save(file, form, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", "<>")
def test_the_orientation_is_read(form, order):
    assert [orientation(encoded(form, number, order)) for number in (1, 3, 6)] == [1, 3, 6]


@pytest.mark.parametrize(
    "data",
    [
        b"no image",
        encoded("JPEG"),
        encoded("JPEG", 77),
        encoded("JPEG", 6).replace(b"Exif\0\0II*\0\x08", b"Exif\0\0II*\0\xf0"),
        encoded("JPEG", 6).replace(b"Exif\0\0II*\0", b"Exif\0\0xxxx"),
    ],
)
def test_what_has_none_is_upright(data):
    assert orientation(data) == 1
