"""Make a segmenter's training views of images and masks: scaled, cropped, flipped, tinted.

As mmsegmentation does for ADE20K (its `configs/_base_/datasets/ade20k.py`): a scale is drawn, then
a crop in which no class has more than three quarters, a flip, and changes of colour; what lies
outside the image keeps its own. Crop and scale are one resampling here, of the crop alone and
antialiased, which OpenCV's is not, and the mask goes through the very same box.

Legend: C channels, H height, W width, S side of a view.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.data.labelled import decoded_image
from milan_pipeline.evaluate.segmentation.colours import distorted
from milan_pipeline.evaluate.segmentation.masks import IGNORED, Labels

CROPS_TRIED = 10
INTERPOLATION = "bilinear"
"""Of pixels, also where they are scored."""


class MaskedBatch(NamedTuple):
    """One rank's part of a global batch.

    Attributes:
        images_BCSS: uint8 pixels.
        labels_BSS: uint8 class numbers, or `IGNORED`.
        keys: the samples.
    """

    images_BCSS: Tensor
    labels_BSS: Tensor
    keys: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleRule:
    """How large an image is made before it is cut: the largest that both limits allow.

    Attributes:
        short_side: of the scaled image, in pixels.
        long_side: of the scaled image, in pixels; 0 is no limit.
    """

    short_side: int
    long_side: int

    def factor(self, height: int, width: int) -> float:
        """Return by how much an image is enlarged."""
        fits_short = self.short_side / min(height, width)
        if not self.long_side:
            return fits_short
        return min(fits_short, self.long_side / max(height, width))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedViewConfig:
    """How views are made of samples.

    Attributes:
        image_size: S, height and width of a view, in pixels.
        scale: of the image before the drawn factor.
        least_scale: smallest drawn factor.
        most_scale: largest drawn factor.
        max_class_share: of a crop's labelled pixels that one class may have, if possible.
        photometric: change brightness, contrast, saturation and hue.
        mean: of the pixels, in [0, 1]: the colour of what lies outside the image.
        seed: of all draws.
    """

    image_size: int
    scale: ScaleRule
    least_scale: float
    most_scale: float
    max_class_share: float
    photometric: bool
    mean: tuple[float, ...]
    seed: int


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of an image, resampled: `box` in source pixels becomes `size`, then maybe flips."""

    box: tuple[float, float, float, float]  # left, top, right, bottom
    size: tuple[int, int]  # width, height

    def image(self, rgb: Image.Image) -> NDArray[np.uint8]:
        """Cut it out of an image: (H, W, C), antialiased."""
        return np.asarray(
            rgb.resize(self.size, Image.Resampling[INTERPOLATION.upper()], box=self.box)
        )

    def labels(self, labels: Image.Image) -> NDArray[np.uint8]:
        """Cut it out of labels: (H, W), each that of the nearest pixel."""
        return np.asarray(labels.resize(self.size, Image.Resampling.NEAREST, box=self.box))


class MaskedViews:
    """Turn samples into examples for training; a stage of a pipeline.

    What is drawn for a sample is a function of (seed, epoch, key) alone.
    """

    def __init__(self, config: MaskedViewConfig, labels: Labels) -> None:
        self._config = config
        self._labels = labels
        self._fill_C = np.array([round(255 * value) for value in config.mean], dtype=np.uint8)

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[MaskedBatch]:
        """Yield examples without a batch dimension, in the samples' order.

        Raises:
            BadImageError: an image cannot be decoded.
            DataError: a mask cannot be used; it is named.
        """
        for sample in samples:
            image = decoded_image(sample)
            labels = Image.fromarray(self._labels(sample, (image.height, image.width)))
            key = (self._config.seed, sample["epoch"], sample["__key__"])
            draws = keyed_generator("segmentation view", *key)
            window, cut_HW = self._window(labels, draws)
            flip = slice(None, None, -1 if draws.random() < 0.5 else 1)
            cut_HWC = window.image(image)[:, flip]
            if self._config.photometric:
                # Copied: a view of one column stays mirrored for numpy, which torch does not take.
                cut_CHW = torch.from_numpy(cut_HWC.transpose(2, 0, 1).copy())
                changed_CHW = distorted(cut_CHW, keyed_generator("segmentation colours", *key))
                cut_HWC = changed_CHW.permute(1, 2, 0).numpy()
            view_CSS = self._padded(cut_HWC, self._fill_C).transpose(2, 0, 1)
            labels_SS = self._padded(cut_HW[:, flip], np.uint8(IGNORED))
            view = torch.from_numpy(np.ascontiguousarray(view_CSS))
            yield MaskedBatch(view, torch.from_numpy(labels_SS), [sample["__key__"]])

    def _window(
        self, labels: Image.Image, draws: np.random.Generator
    ) -> tuple[Window, NDArray[np.uint8]]:
        """Draw a scale and a crop, again while one class fills the crop; return its labels too."""
        config = self._config
        factor = config.scale.factor(labels.height, labels.width)
        factor *= draws.uniform(config.least_scale, config.most_scale)
        for _ in range(CROPS_TRIED):
            window = _drawn_window((labels.width, labels.height), factor, config.image_size, draws)
            cut_HW = window.labels(labels)
            if _largest_share(cut_HW) < config.max_class_share:
                break
        return window, cut_HW

    def _padded(self, cut: NDArray[np.uint8], fill: Any) -> NDArray[np.uint8]:
        """Fill up to S by S, to the right and below."""
        side = self._config.image_size
        whole = np.empty((side, side, *cut.shape[2:]), dtype=np.uint8)
        whole[:] = fill
        whole[: cut.shape[0], : cut.shape[1]] = cut
        return whole


def _drawn_window(
    size: tuple[int, int], factor: float, side: int, draws: np.random.Generator
) -> Window:
    """Draw a crop of the scaled image, of at most `side` by `side` whole pixels."""
    starts, stops, lengths = [], [], []
    for source in size:
        scaled = max(1, int(source * factor + 0.5))
        length = min(side, scaled)
        start = int(draws.integers(scaled - length + 1))
        starts.append(start * source / scaled)
        stops.append(min(float(source), (start + length) * source / scaled))
        lengths.append(length)
    return Window((starts[0], starts[1], stops[0], stops[1]), (lengths[0], lengths[1]))


def _largest_share(labels_HW: NDArray[np.uint8]) -> float:
    """Return the share of the labelled pixels that the largest class has; 1 without any."""
    counts = np.bincount(labels_HW.ravel(), minlength=256)[:IGNORED]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0
