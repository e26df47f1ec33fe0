"""Every kind of image that decodes, every kind that must not, and the header probe."""

import contextlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
import torch
import xxhash
from PIL import Image, ImageFile, PngImagePlugin
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from milan_pipeline.errors import BadImageError
from milan_pipeline.images import decode
from milan_pipeline.images.crops import cut_patches, view_pixels
from milan_pipeline.images.decode import decode_rgb, digest, probe_header
from milan_pipeline.images.views import Box
from milan_pipeline.models.student import patchify

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encode(image, fmt, **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def expected(data):
    """What torchvision's ImageFolder would load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


def palette_with_byte_transparency():
    image = PICTURE.quantize(16)
    return encode(image, "PNG", transparency=bytes(range(16)))


def animation(fmt):
    frames = [Image.fromarray(np.full((9, 7, 3), v, np.uint8)) for v in (10, 200)]
    return encode(frames[0], fmt, save_all=True, append_images=frames[1:], lossless=True)


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width, height):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + data


def webp_claiming(width, height):
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


KINDS = {
    "jpeg": encode(PICTURE, "JPEG"),
    "progressive": encode(PICTURE, "JPEG", progressive=True),
    "grey jpeg": encode(PICTURE.convert("L"), "JPEG"),
    "cmyk": encode(PICTURE.convert("CMYK"), "JPEG"),
    "rgb png": encode(PICTURE, "PNG"),
    "rgba png": encode(PICTURE.convert("RGBA"), "PNG"),
    "transparent colour": encode(PICTURE, "PNG", transparency=(1, 2, 3)),
    "grey alpha": encode(PICTURE.convert("LA"), "PNG"),
    "grey transparent": encode(PICTURE.convert("L"), "PNG", transparency=3),
    "1-bit": encode(PICTURE.convert("1"), "PNG"),
    "palette": encode(PICTURE.quantize(16), "PNG"),
    "palette, one transparent": encode(PICTURE.quantize(16), "PNG", transparency=3),
    "palette, transparent bytes": palette_with_byte_transparency(),
    "webp": encode(PICTURE, "WEBP"),
    "webp alpha": encode(PICTURE.convert("RGBA"), "WEBP", lossless=True),
    "animated webp": animation("WEBP"),
    "animated png": animation("PNG"),
    "1x1": encode(PICTURE.resize((1, 1)), "PNG"),
    "1x1 jpeg": encode(PICTURE.resize((1, 1)), "JPEG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_decodes_as_imagefolder_does(kind):
    rgb = decode_rgb(KINDS[kind])
    assert rgb.dtype == np.uint8
    assert not rgb.flags.writeable
    np.testing.assert_array_equal(rgb, expected(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_probe_agrees_with_decode(kind):
    fmt, width, height = probe_header(KINDS[kind])
    assert decode_rgb(KINDS[kind]).shape == (height, width, 3)
    assert fmt == ("WEBP" if "webp" in kind else "PNG" if KINDS[kind][1:4] == b"PNG" else "JPEG")


def test_animation_gives_its_first_frame():
    assert (decode_rgb(animation("WEBP")) == 10).all()
    assert (decode_rgb(animation("PNG")) == 10).all()


def test_sixteen_bit_grey_is_scaled_not_clipped():
    grey = RNG.integers(0, 65536, (5, 6), dtype=np.uint16)
    rgb = decode_rgb(encode(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(rgb, np.repeat((grey >> 8)[..., None], 3, axis=2))
    assert not rgb.flags.writeable


def test_sixteen_bit_grey_of_mode_i_is_scaled(monkeypatch):
    """Older Pillow reads 16-bit PNGs as 32-bit integers."""
    monkeypatch.setitem(PngImagePlugin._MODES, (16, 0), ("I", "I;16B"))
    grey = RNG.integers(0, 65536, (5, 6), dtype=np.uint16)
    data = encode(Image.fromarray(grey), "PNG")
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "I"
    assert (decode_rgb(data)[..., 0] == grey >> 8).all()


def test_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(PICTURE, "JPEG", exif=exif)
    assert decode_rgb(data).shape == PIXELS.shape


def test_broken_exif_neither_warns_nor_spoils_the_image():
    ifd = struct.pack("<HHHII", 1, 0x010F, 2, 999, 4000)  # a tag that points beyond the data
    exif = b"Exif\0\0II*\0\x08\0\0\0" + ifd
    data = encode(PICTURE, "JPEG", exif=exif).replace(b"JFIF", b"JFIX")  # no density but EXIF's
    with (
        pytest.warns(UserWarning, match="EXIF|larger than|Truncated"),
        Image.open(io.BytesIO(data)),
    ):
        pass
    np.testing.assert_array_equal(decode_rgb(data), expected(data))


def test_large_image_decodes():
    data = encode(Image.new("RGB", (8000, 6000), (1, 2, 3)), "PNG", compress_level=1)
    rgb = decode_rgb(data)
    assert rgb.shape == (6000, 8000, 3)
    assert (rgb[-1, -1] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    "data",
    [
        png_claiming(9_500, 9_500),  # Pillow only warns
        png_claiming(60_000, 60_000),  # Pillow refuses
        encode(PICTURE, "JPEG").replace(
            struct.pack(">HH", 24, 40), struct.pack(">HH", 65_000, 65_000)
        ),
        webp_claiming(16_000, 16_000),
    ],
    ids=["png warning", "png error", "jpeg", "webp"],
)
@pytest.mark.parametrize("read", [decode_rgb, probe_header])
def test_bombs_are_refused_before_decoding(data, read, monkeypatch):
    def never(*_args, **_options):
        pytest.fail("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    with pytest.raises(BadImageError):
        read(data)


def test_bomb_error_names_size_and_limit():
    with pytest.raises(BadImageError, match=r"9500 x 9500 pixels, over the limit of 89478485"):
        probe_header(png_claiming(9_500, 9_500))


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "cmyk", "rgb png", "palette", "webp"])
def test_truncation_never_costs_pixels_silently(kind):
    """A file that lacks less than its last 24 bytes may still hold every pixel."""
    data, whole = KINDS[kind], expected(KINDS[kind])
    for length in range(0, len(data) - 24, 7):
        with pytest.raises(BadImageError):
            decode_rgb(data[:length])
    for length in range(len(data) - 24, len(data)):
        with contextlib.suppress(BadImageError):
            np.testing.assert_array_equal(decode_rgb(data[:length]), whole)


def test_truncated_large_jpeg_is_an_error():
    data = encode(
        Image.fromarray(RNG.integers(0, 256, (300, 300, 3), dtype=np.uint8)), "JPEG", quality=95
    )
    assert len(data) > 2**16  # more than one of Pillow's reads
    for length in (2**16 - 1, 2**16, 2**16 + 1, len(data) - 3, len(data) - 2):
        with pytest.raises(BadImageError, match="truncated"):
            decode_rgb(data[:length])


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_decode_or_raise_bad_image_error(kind):
    rng = np.random.default_rng(7)
    for _ in range(60):
        data = bytearray(KINDS[kind])
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(256)
        for read in (decode_rgb, probe_header):
            with contextlib.suppress(BadImageError):
                read(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(50),
        encode(PICTURE, "GIF"),
        encode(PICTURE, "TIFF"),
        encode(PICTURE, "BMP"),
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"not an image",
    ],
)
@pytest.mark.parametrize("read", [decode_rgb, probe_header])
def test_other_formats_are_refused(data, read):
    with pytest.raises(BadImageError, match=r"no JPEG, PNG or WebP|is empty"):
        read(data)


@pytest.mark.parametrize("raised", [OSError("a\nb"), SyntaxError(), struct.error("x"), KeyError(1)])
def test_whatever_pillow_raises_becomes_one_sentence(raised, monkeypatch):
    def fail(_self):
        raise raised

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(BadImageError, match="cannot be decoded") as caught:
        decode_rgb(KINDS["rgb png"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["jpeg", "rgb png"])
def test_out_of_memory_is_not_blamed_on_the_image(kind, monkeypatch):
    def fail(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    with pytest.raises(MemoryError):
        decode_rgb(KINDS[kind])


# ---- the fast JPEG decoder gives what Pillow gives, or leaves the file to it

SMOOTH = PICTURE.resize((53, 41), Image.Resampling.BICUBIC)  # no multiple of a block
JPEGS = {
    f"{subsampling} {'progressive' if progressive else 'baseline'} {quality}": encode(
        SMOOTH, "JPEG", subsampling=subsampling, progressive=progressive, quality=quality
    )
    for subsampling in ("4:4:4", "4:2:2", "4:2:0")
    for progressive in (False, True)
    for quality in (30, 95)
} | {
    "grey": encode(SMOOTH.convert("L"), "JPEG"),
    "grey progressive": encode(SMOOTH.convert("L"), "JPEG", progressive=True),
    "stored as RGB": encode(SMOOTH, "JPEG", keep_rgb=True),
    "restarts": encode(SMOOTH, "JPEG", restart_marker_blocks=3),
    "optimised": encode(SMOOTH, "JPEG", optimize=True),
    "metadata": encode(SMOOTH, "JPEG", icc_profile=bytes(99), exif=Image.Exif(), comment=b"x"),
    "bytes behind the end": encode(SMOOTH, "JPEG") + b"more",
    "large": encode(SMOOTH.resize((1111, 777)), "JPEG"),
}


def by_pillow(data):
    """The pixels by Pillow alone; None where it refuses the file."""
    try:
        with decode.open_with_pillow(data) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 - whatever a damaged file leads it to
        return None


@pytest.mark.parametrize("kind", JPEGS)
def test_a_sound_jpeg_is_decoded_fast_and_equal(kind, monkeypatch):
    expected_HWC = expected(JPEGS[kind])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _self: pytest.fail("not fast"))
    rgb_HWC = decode_rgb(JPEGS[kind])
    np.testing.assert_array_equal(rgb_HWC, expected_HWC)
    assert not rgb_HWC.flags.writeable


@pytest.mark.parametrize("kind", [kind for kind in JPEGS if kind != "large"])
def test_a_damaged_jpeg_is_judged_as_by_pillow(kind):
    rng = np.random.default_rng(3)
    verdicts = set()
    for trial in range(90):
        data = bytearray(JPEGS[kind])
        if trial % 3 == 0:
            del data[rng.integers(len(data) // 2, len(data)) :]
        else:  # in headers and tables, or anywhere
            for position in rng.integers(2, 620 if trial % 3 == 1 else len(data), 2):
                data[position % len(data)] = rng.integers(256)
        plain_HWC = by_pillow(bytes(data))
        verdicts.add(plain_HWC is None)
        if plain_HWC is None:
            with pytest.raises(BadImageError):
                decode_rgb(bytes(data))
        else:
            np.testing.assert_array_equal(decode_rgb(bytes(data)), plain_HWC)
    assert verdicts == {True, False}


def test_threads_agree():
    kinds = list(KINDS.values()) * 4
    with ThreadPoolExecutor(8) as pool:
        for data, rgb in zip(kinds, pool.map(decode_rgb, kinds), strict=True):
            np.testing.assert_array_equal(rgb, expected(data))


def test_digest_is_unsigned_xxh3():
    large = max((str(i).encode() for i in range(50)), key=digest)
    assert digest(large) == int.from_bytes(xxhash.xxh3_64_digest(large), "big") >= 2**63


@pytest.mark.parametrize("box", [Box(0, 0, 24, 40, False), Box(3, 5, 17, 11, False)])
@pytest.mark.parametrize("size", [8, 33])
def test_view_equals_plain_crop_and_resize(box, size):
    """Parity with torchvision on an ordinary contiguous tensor."""
    crop = torch.tensor(PIXELS).permute(2, 0, 1).contiguous()
    crop = F.crop(crop, box.top, box.left, box.height, box.width)
    plain = F.resize(crop, [size, size], InterpolationMode.BICUBIC, antialias=True)
    view = view_pixels(decode_rgb(KINDS["rgb png"]), box, size)
    assert view.dtype == torch.uint8
    assert view.is_contiguous()
    torch.testing.assert_close(view, plain, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_view_is_close_to_pillow(name):
    smooth = PICTURE.resize((160, 120), Image.Resampling.BICUBIC)
    by_pillow = np.asarray(smooth.resize((32, 32), Image.Resampling[name.upper()])).astype(int)
    box = Box(0, 0, 120, 160, False)
    view = view_pixels(np.asarray(smooth), box, 32, interpolation=name)
    assert np.abs(view.permute(1, 2, 0).numpy().astype(int) - by_pillow).max() <= 1


def test_flip_mirrors_the_same_crop():
    rgb = decode_rgb(KINDS["rgb png"])
    straight = view_pixels(rgb, Box(2, 3, 20, 20, False), 16)
    mirrored = view_pixels(rgb, Box(2, 3, 20, 20, True), 16)
    assert torch.equal(mirrored, straight.flip(-1))


@pytest.mark.parametrize("flip", [False, True])
def test_a_view_goes_where_it_is_told(flip):
    box = Box(2, 3, 20, 30, flip)
    batch = torch.zeros((3, 3, 16, 16), dtype=torch.uint8)
    view = view_pixels(PIXELS, box, 16, out=batch[1])
    assert view.data_ptr() == batch[1].data_ptr()
    assert torch.equal(batch[1], view_pixels(PIXELS, box, 16))
    assert not batch[0].any()
    assert not batch[2].any()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kept", [[], [0], [15], [1, 4, 5, 14]])
def test_cut_patches_are_those_of_the_whole_view(flip, kept):
    view = view_pixels(PIXELS, Box(2, 3, 20, 30, flip), 16)
    kept_K = np.array(kept, dtype=np.int64)
    patches_KP = cut_patches(view, 4, kept_K)
    assert torch.equal(patches_KP, patchify(view, 4)[torch.from_numpy(kept_K)])
    assert patches_KP.is_contiguous()


def test_view_never_aliases_the_image():
    rgb = PIXELS.copy()
    view = view_pixels(rgb, Box(0, 0, 16, 16, False), 16)
    view.zero_()
    np.testing.assert_array_equal(rgb, PIXELS)


def test_one_pixel_image_gives_a_full_view():
    view = view_pixels(np.full((1, 1, 3), 9, np.uint8), Box(0, 0, 1, 1, True), 8)
    assert view.shape == (3, 8, 8)
    assert (view == 9).all()
