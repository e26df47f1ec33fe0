"""Draws images, their true labels and a segmenter's answers side by side.

Legend: B images, C channels, H height, W width, Y classes.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from milan_pipeline.evaluate.segmentation.masks import IGNORED

TITLES = ("image", "truth", "prediction")
INCHES, TITLE_INCHES = 2.2, 0.3
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
    height = INCHES * rows + TITLE_INCHES
    figure = Figure(figsize=(INCHES * len(TITLES), height))
    # In fixed places: fitting a layout would take longer than everything else.
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1 - TITLE_INCHES / height}
    axes = figure.subplots(
        rows, len(TITLES), squeeze=False, gridspec_kw=edges | {"wspace": 0.03, "hspace": 0.03}
    )
    parts = zip(axes, images_CHW, truths_HW, answers_HW, strict=True)
    for row, image_CHW, truth_HW, answer_HW in parts:
        labelled_HW = np.where(truth_HW == IGNORED, np.uint8(IGNORED), answer_HW)
        shown = (image_CHW.transpose(1, 2, 0), colours[truth_HW], colours[labelled_HW])
        for axis, pixels_HWC in zip(row, shown, strict=True):
            axis.imshow(pixels_HWC, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title)
    FigureCanvasAgg(figure)
    png = io.BytesIO()
    # Without the version of matplotlib, so that equal pictures have equal bytes.
    figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    return png.getvalue()
