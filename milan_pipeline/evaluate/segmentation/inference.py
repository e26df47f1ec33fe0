"""What a segmenter says of whole images: at once or by a sliding window, at one scale or several.

Probabilities are averaged over scales and flips, logits over windows, as mmsegmentation does.

Legend: B batch, C channels, H and W height and width of the masks, h and w those of a scaled image,
Y classes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from milan_pipeline.data.labelled import decoded_image
from milan_pipeline.evaluate.segmentation.masks import Labels
from milan_pipeline.evaluate.segmentation.views import ScaleRule, Window
from milan_pipeline.images.crops import Pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How images are looked at.

    Attributes:
        scale: of the image.
        factors: of that scale, each looked at in turn.
        flip: look at the mirror image, too.
        window: side of a sliding window, in pixels; None sees images whole.
        stride: of the window, in pixels.
        multiple: side of a patch, in pixels: what is looked at is filled up to multiples of it.
        batch: images or windows in a forward pass.
    """

    scale: ScaleRule
    factors: tuple[float, ...]
    flip: bool
    window: int | None
    stride: int
    multiple: int
    batch: int


class ScoredImage(NamedTuple):
    """An image that is scored.

    Attributes:
        scaled_Chw: uint8 pixels at each scale.
        labels_HW: uint8, the true labels, of the size of the unscaled image.
    """

    scaled_Chw: list[Tensor]
    labels_HW: Tensor

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all tensors; images of equal shapes can go through the model together."""
        return tuple(tuple(tensor.shape) for tensor in (*self.scaled_Chw, self.labels_HW))


class PrepareImage:
    """Turn a sample into a `ScoredImage`."""

    def __init__(self, config: InferenceConfig, labels: Labels) -> None:
        self._config = config
        self._labels = labels

    def __call__(self, sample: dict[str, Any]) -> ScoredImage:
        """Scale an image; its mask stays as it is.

        Raises:
            BadImageError: the image cannot be decoded.
            DataError: the mask cannot be used; it is named.
        """
        image = decoded_image(sample)
        width, height = image.size
        labels_HW = self._labels(sample, (height, width))
        factor = self._config.scale.factor(height, width)
        scaled = []
        for each in self._config.factors:
            w, h = (max(1, int(side * factor * each + 0.5)) for side in (width, height))
            pixels = Window((0, 0, width, height), (w, h)).image(image)
            scaled.append(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))
        return ScoredImage(scaled, torch.from_numpy(labels_HW))


class Inference:
    """Label the pixels of images with a segmenter.

    Args:
        logits_of: float32 (B, Y, h, w) of normalised images (B, C, h, w).
        pixels: normalises them, on the segmenter's device.
        config: how.
    """

    def __init__(
        self, logits_of: Callable[[Tensor], Tensor], pixels: Pixels, config: InferenceConfig
    ) -> None:
        self._logits_of = logits_of
        self._pixels = pixels
        self._config = config

    @torch.no_grad()
    def probabilities(self, scaled_BChw: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return float32 (B, Y, H, W).

        Args:
            scaled_BChw: uint8 pixels of the same images at each scale.
            size: H and W.
        """
        total: Any = 0
        for images_BChw in map(self._pixels, scaled_BChw):
            for mirrored in (False, True) if self._config.flip else (False,):
                seen = images_BChw.flip(-1) if mirrored else images_BChw
                logits_BYhw = self._logits(seen)
                logits_BYhw = logits_BYhw.flip(-1) if mirrored else logits_BYhw
                total = total + enlarged(logits_BYhw, size).softmax(dim=1)
        mean: Tensor = total / (len(scaled_BChw) * (2 if self._config.flip else 1))
        return mean

    def labels(self, images: Sequence[ScoredImage]) -> Tensor:
        """Return the likeliest class of each pixel, int64 (B, H, W); shapes must be equal."""
        scales = zip(*(image.scaled_Chw for image in images), strict=True)
        height, width = images[0].labels_HW.shape
        return self.probabilities([torch.stack(s) for s in scales], (height, width)).argmax(dim=1)

    def _logits(self, images_BChw: Tensor) -> Tensor:
        """Return logits (B, Y, h, w), float32."""
        window, multiple = self._config.window, self._config.multiple
        height, width = images_BChw.shape[-2:]
        below, beside = (
            max(0, window - side) if window is not None else -side % multiple
            for side in (height, width)
        )
        # Filled up with 0: the mean colour, once normalised.
        filled = F.pad(images_BChw, (0, beside, 0, below))
        logits = self._in_batches(filled) if window is None else self._slid(filled, window)
        return logits[..., :height, :width]

    def _slid(self, images_BChw: Tensor, window: int) -> Tensor:
        """Return the mean logits of all windows that see a pixel."""
        height, width = images_BChw.shape[-2:]
        starts = (window_starts(side, window, self._config.stride) for side in (height, width))
        corners = list(itertools.product(*starts))
        cut = [images_BChw[..., t : t + window, left : left + window] for t, left in corners]
        logits = self._in_batches(torch.cat(cut)).chunk(len(corners))
        total = logits[0].new_zeros(*logits[0].shape[:2], height, width)
        seen = total.new_zeros(height, width)
        for (t, left), logits_BYss in zip(corners, logits, strict=True):
            total[..., t : t + window, left : left + window] += logits_BYss
            seen[t : t + window, left : left + window] += 1
        mean: Tensor = total / seen
        return mean

    def _in_batches(self, images_nChw: Tensor) -> Tensor:
        size = self._config.batch
        starts = range(0, len(images_nChw), size)
        return torch.cat([self._logits_of(images_nChw[at : at + size]) for at in starts])


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start so that they cover a length, the last one flush with its end."""
    count = max(0, -(-(length - window) // stride)) + 1
    return [min(at * stride, length - window) for at in range(count)]


def enlarged(logits_BYhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring logits to another size."""
    if tuple(logits_BYhw.shape[-2:]) == size:
        return logits_BYhw
    return F.interpolate(logits_BYhw, size=size, mode="bilinear", align_corners=False)
