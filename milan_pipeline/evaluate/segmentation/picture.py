"""Draws images, their true labels and a segmenter's answers side by side.

Legend: B images, C channels, H height, W width, Y classes.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from milan_pipeline.evaluate.segmentation.masks import IGNORED

TITLES = ("image", "truth", "prediction")
CELL, GAP, TITLE = 264, 4, 36  # pixels: a picture's side with its gap, the line of titles
GOLDEN = (5**0.5 - 1) / 2  # a step between hues: however many there are, no two are alike


def class_colours(classes: int) -> NDArray[np.uint8]:
    """Return 256 colours, (256, 3): one for each class, black for other values."""
    numbers = np.arange(classes)
    hsv = np.stack(
        [numbers * GOLDEN % 1, 0.9 - 0.3 * (numbers % 3) / 2, 1 - 0.4 * (numbers // 3 % 3) / 2],
        axis=1,
    )
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[:classes] = np.round(255 * hsv_to_rgb(hsv)).astype(np.uint8)
    return colours


def draw_segmentations(
    images_CHW: Sequence[NDArray[np.uint8]],
    truths_HW: Sequence[NDArray[np.uint8]],
    answers_HW: Sequence[NDArray[np.uint8]],
    *,
    classes: int,
) -> bytes:
    """Draw a row for each image, as a PNG; pixels without a label are black in truth and answer.

    Args:
        images_CHW: of any sizes.
        truths_HW: labels, or `IGNORED`.
        answers_HW: labels.
        classes: Y.
    """
    colours, rows = class_colours(classes), len(images_CHW)
    sheet = Image.new("RGB", (len(TITLES) * CELL, TITLE + rows * CELL), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(TITLES):
        draw.text(
            (column * CELL + CELL // 2, TITLE // 2), title, fill="black", anchor="mm", font_size=16
        )
    parts = zip(images_CHW, truths_HW, answers_HW, strict=True)
    for row, (image_CHW, truth_HW, answer_HW) in enumerate(parts):
        labelled_HW = np.where(truth_HW == IGNORED, np.uint8(IGNORED), answer_HW)
        shown = (image_CHW.transpose(1, 2, 0), colours[truth_HW], colours[labelled_HW])
        for column, pixels_HWC in enumerate(shown):
            place = (column * CELL + GAP, TITLE + row * CELL + GAP)
            side = (CELL - 2 * GAP, CELL - 2 * GAP)
            fitted = ImageOps.pad(
                Image.fromarray(pixels_HWC), side, Image.Resampling.NEAREST, color="white"
            )
            sheet.paste(fitted, place)
    png = io.BytesIO()
    sheet.save(png, format="png")
    return png.getvalue()
