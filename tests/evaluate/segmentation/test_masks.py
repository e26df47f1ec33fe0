"""What a mask's values mean, and which masks are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.evaluate.segmentation.masks import IGNORED, LabelConfig, Labels
from tests.support.pictures import png, sample

VALUES = np.array([[0, 1, 2], [3, 255, 1]], dtype=np.uint8)


def decode(values=VALUES, *, classes=4, ignored=255, reduce=False, data=None, size=None, **more):
    config = LabelConfig(classes=classes, ignore_index=ignored, reduce_zero_label=reduce, **more)
    mask = png(values) if data is None else data
    return Labels(config)(sample(mask=mask), size or values.shape)


def test_values_are_classes():
    labels = decode()
    assert (labels.tolist(), labels.dtype) == ([[0, 1, 2], [3, IGNORED, 1]], np.uint8)


def test_zero_reduced_is_ignored_and_the_rest_move_down():
    assert decode(classes=3, reduce=True).tolist() == [[IGNORED, 0, 1], [2, IGNORED, 0]]


def test_another_value_may_be_ignored():
    values = np.array([[0, 9, 1]], dtype=np.uint8)
    assert decode(values, classes=2, ignored=9).tolist() == [[0, IGNORED, 1]]


def test_an_image_that_exif_turns_is_to_be_turned_to_fit_its_mask():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (2, 3)).save(file, "JPEG", exif=exif)
    labels = Labels(LabelConfig(classes=4, ignore_index=255, reduce_zero_label=False))
    with pytest.raises(DataError, match=r"pixels and its image 3 x 2; .*EXIF.*mogrify -auto-ori"):
        labels(sample(mask=png(VALUES)) | {"image": file.getvalue()}, (3, 2))


def test_a_palette_is_passed_over():
    assert decode(data=png(VALUES, palette=True)).tolist() == decode().tolist()


@pytest.mark.parametrize(
    ("values", "changes", "remedy"),
    [
        ([0, 1, 4], {}, "give --reduce-zero-label if 0 marks what has no class, --classes 5 if"),
        ([0, 1, 5], {"reduce": True}, "give --classes 5 if it is one more, or --ignore-index 5"),
        ([0, 1, 4], {"trained": True}, "if 0 marks what has no class, or --ignore-index 4 if it"),
        ([0, 128], {"classes": 2}, "renumber the classes in the masks, from 0 to 1, or give --ig"),
    ],
)
def test_the_remedy_for_a_value_that_is_no_class_fits_the_masks(values, changes, remedy):
    with pytest.raises(DataError, match=remedy):
        decode(np.array([values], dtype=np.uint8), **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": 3}, "value 3, which is none of the 3 classes"),
        ({"ignored": 0}, "value 255"),
        ({"size": (3, 2)}, "2 x 3 pixels and its image 3 x 2"),
        ({"data": b"no image"}, "no sound PNG"),
        (
            {"data": png(np.zeros((2, 3, 3), np.uint8))},
            "has colours or alpha and not one 8-bit number",
        ),
        ({"data": png(np.zeros((2, 3), np.uint16))}, "has 16 bits a pixel; save it with 8 bits"),
    ],
)
def test_other_masks_are_refused_by_name(changes, said):
    with pytest.raises(DataError, match=said) as caught:
        decode(**changes)
    assert str(caught.value).startswith("x.tar, mask of 'a'")


def packed_grey(bits, row):
    """Return a grey PNG of one row of two pixels, packed into a byte."""
    head = struct.pack(">2I5B", 2, 1, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes([0, row]))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


@pytest.mark.parametrize(("bits", "row"), [(2, 0b01_10_0000), (4, 0x12)])
def test_grey_of_few_bits_whose_values_would_be_scaled_is_refused(bits, row):
    with pytest.raises(DataError, match=f"'a' has {bits} bits a pixel; save it with 8 bits"):
        decode(data=packed_grey(bits, row), classes=255, size=(1, 2))


def test_more_classes_than_bytes_can_tell_apart_are_refused():
    with pytest.raises(ConfigError, match="--classes 256"):
        decode(classes=256)


def test_a_wrong_announcement_of_an_animation_does_no_harm():
    """Pillow would warn of it; warnings are errors here."""
    mask = png(VALUES)
    announced = mask[:33] + struct.pack(">I4sIII", 8, b"acTL", 0, 0, 0x2A4FFA86) + mask[33:]
    assert decode(data=announced).tolist() == decode().tolist()
