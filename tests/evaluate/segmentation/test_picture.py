"""The picture of input, truth and prediction."""

import io

import numpy as np
from PIL import Image

from milan_pipeline.evaluate.segmentation.masks import IGNORED
from milan_pipeline.evaluate.segmentation.picture import class_colours, draw_segmentations
from tests.support.pictures import COLOURS, labels


def test_classes_have_colours_of_their_own():
    colours = class_colours(150)
    assert len({tuple(colour) for colour in colours[:150].tolist()}) == 150
    assert not colours[150:].any()


def test_a_row_for_each_image_of_any_size():
    truths = [labels(0), labels(1, (32, 32))]
    truths[0][:9] = IGNORED
    images = [COLOURS[truth % 3].transpose(2, 0, 1) for truth in truths]
    data = draw_segmentations(images, truths, truths, classes=3)
    assert data == draw_segmentations(images, truths, truths, classes=3)
    with Image.open(io.BytesIO(data)) as picture:
        shown = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    found = {tuple(colour) for colour in shown.tolist()}
    assert {tuple(colour) for colour in class_colours(3)[:3].tolist()} <= found
    assert (0, 0, 0) in found
