"""The orientation that EXIF gives an image, and EXIF that gives none."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from milan_pipeline.errors import BadImageError
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.orientation import orientation, upright
from tests.support.pictures import noise

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


def photo(form, number, size=(64, 48), mode="RGB", **how):
    exif = Image.Exif()
    exif[0x0112] = number
    file = io.BytesIO()
    noise(size).convert(mode).save(file, form, exif=exif, **how)
    return file.getvalue()


def as_shown(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("number", range(1, 9))
def test_png_and_webp_are_turned_without_loss(number):
    for form, how in (("PNG", {}), ("WEBP", {"quality": 80})):
        data = photo(form, number, **how)
        turned = upright(data)
        assert orientation(turned) == 1
        assert np.array_equal(decode_rgb(turned), as_shown(data))
        assert (turned == data) == (number == 1)


def test_turning_keeps_what_is_transparent():
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba_HWC = np.dstack([np.asarray(noise((8, 6))), np.arange(48, dtype=np.uint8).reshape(6, 8)])
    rgba_HWC[:3, :, 3] = 0
    for form, image, how in (
        ("WEBP", Image.fromarray(rgba_HWC), {"lossless": True, "exact": True}),
        ("PNG", Image.fromarray(rgba_HWC), {}),
        ("PNG", noise((8, 6)).quantize(8), {"transparency": 3}),
    ):
        file = io.BytesIO()
        image.save(file, form, exif=exif, **how)
        with Image.open(file) as before, Image.open(io.BytesIO(upright(file.getvalue()))) as after:
            turned_HWC = np.rot90(np.asarray(before.convert("RGBA")), -1)
            assert np.array_equal(np.asarray(after.convert("RGBA")), turned_HWC), form


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(("number", "sampling"), [(6, 0), (3, 1), (5, 1), (8, 2)])
def test_a_jpeg_is_compressed_as_it_was(number, sampling, mode):
    how = {} if mode == "L" else {"subsampling": sampling}
    data = photo("JPEG", number, quality=60, mode=mode, **how)
    turned = upright(data)
    difference = np.abs(decode_rgb(turned).astype(int) - as_shown(data))
    assert difference.mean() < 2  # of 255
    assert len(turned) < 1.4 * len(data)
    assert orientation(turned) == 1


def test_an_image_that_is_to_be_turned_but_damaged_is_named():
    with pytest.raises(BadImageError, match="cannot be turned as its EXIF says"):
        upright(photo("JPEG", 6)[:-300])
