"""Label whole images with a segmenter: at once or by a sliding window, at one or more scales.

Probabilities are averaged over scales and flips, logits over windows, as mmsegmentation does.

What takes memory is a forward pass, the logits of one image, and the sum of its probabilities where
there are several scales; classes are enlarged to the image's own size a few at a time.

Legend: B batch, C channels, H and W height and width of the masks, h and w those of a scaled image,
Y classes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from milan_pipeline.data.labelled import decoded_image
from milan_pipeline.evaluate.segmentation.masks import Labels
from milan_pipeline.evaluate.segmentation.views import ScaleRule, Window
from milan_pipeline.images.crops import Pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How images are labelled.

    Attributes:
        scale: of the image.
        factors: of that scale; the answers at all of them are averaged.
        flip: use the mirror image, too.
        window: side of a sliding window, in pixels; None is the whole image.
        stride: of the window, in pixels.
        multiple: side of a patch, in pixels; inputs are padded to multiples of it.
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
        number: its place among the images to score, from 0.
    """

    scaled_Chw: list[Tensor]
    labels_HW: Tensor
    number: int

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
            scaled.append(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
        return ScoredImage(scaled, torch.from_numpy(labels_HW), sample["number"])


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
    def probabilities(self, scaled_Chw: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return float32 (Y, H, W) of one image.

        Args:
            scaled_Chw: uint8 pixels of the image at each scale.
            size: H and W.
        """
        total: Any = None
        for (logits_Yhw,) in self._answers([scaled_Chw]):
            total = _with_probabilities(total, logits_Yhw, size)
        mean: Tensor = total.div_(self._ways)
        return mean

    @torch.no_grad()
    def labels(self, images: Sequence[ScoredImage]) -> Tensor:
        """Return the likeliest class of each pixel, int64 (B, H, W); shapes must be equal."""
        height, width = images[0].labels_HW.shape
        size, scaled = (height, width), [image.scaled_Chw for image in images]
        if self._ways > 1:
            return torch.stack([self.probabilities(each, size).argmax(dim=0) for each in scaled])
        (logits_B,) = self._answers(scaled)
        return torch.stack([likeliest(logits_Yhw, size) for logits_Yhw in logits_B])

    @property
    def _ways(self) -> int:
        """How many answers there are for each image: at all scales, plain and mirrored."""
        return len(self._config.factors) * (2 if self._config.flip else 1)

    def _answers(self, scaled_BChw: Sequence[Sequence[Tensor]]) -> Iterator[Iterator[Tensor]]:
        """Yield, for each scale, plain and mirrored, the logits (Y, h, w) of each image.

        One image's logits are there at a time: they are to be used before the next are asked for.
        """
        for images_Chw in zip(*scaled_BChw, strict=True):
            images_BChw = self._pixels.batch(images_Chw)
            for mirrored in (False, True) if self._config.flip else (False,):
                pixels_BChw = images_BChw.flip(-1) if mirrored else images_BChw
                logits = self._logits(pixels_BChw)
                yield (each.flip(-1) if mirrored else each for each in logits)

    def _logits(self, images_BChw: Tensor) -> Iterator[Tensor]:
        """Yield each image's logits (Y, h, w), float32."""
        window, multiple = self._config.window, self._config.multiple
        height, width = images_BChw.shape[-2:]
        below, beside = (
            max(0, window - side) if window is not None else -side % multiple
            for side in (height, width)
        )
        # Padded with 0, which is the mean colour after normalisation.
        filled = F.pad(images_BChw, (0, beside, 0, below))
        answered = self._in_batches(filled) if window is None else self._slid(filled, window)
        return (logits_Yhw[:, :height, :width] for logits_Yhw in answered)

    def _slid(self, images_BChw: Tensor, window: int) -> Iterator[Tensor]:
        """Yield, of each image, the mean logits of all windows that contain a pixel."""
        height, width = images_BChw.shape[-2:]
        starts = (window_starts(side, window, self._config.stride) for side in (height, width))
        corners = list(itertools.product(*starts))
        parts = [(slice(t, t + window), slice(left, left + window)) for t, left in corners]
        windows_HW = images_BChw.new_zeros(height, width)
        for part in parts:
            windows_HW[part] += 1
        # A forward pass may have windows of several images; they are added up as they come.
        cut = (image_Chw[:, y, x] for image_Chw in images_BChw for y, x in parts)
        answers = self._in_batches(cut)
        for _ in images_BChw:
            total: Any = None
            for (y, x), logits_Yss in zip(parts, answers, strict=False):
                if total is None:
                    total = logits_Yss.new_zeros(len(logits_Yss), height, width)
                total[:, y, x] += logits_Yss
            mean: Tensor = total.div_(windows_HW)
            yield mean

    def _in_batches(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the logits of each of some images (C, h, w), all of one size."""
        images = iter(images)
        while some := list(itertools.islice(images, self._config.batch)):
            yield from self._logits_of(torch.stack(some))


CLASSES_AT_ONCE = 8
"""Classes whose logits are enlarged together: an image's own size times these is what it takes."""


def likeliest(logits_Yhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class of the largest enlarged logit of each pixel, int64 (H, W)."""
    most_HW, label_HW = _enlarged_part(logits_Yhw, 0, size).max(dim=0)
    for first in range(CLASSES_AT_ONCE, len(logits_Yhw), CLASSES_AT_ONCE):
        part_HW, at_HW = _enlarged_part(logits_Yhw, first, size).max(dim=0)
        above_HW = part_HW > most_HW
        # A GPU would tell the host how many there are, if they were picked out.
        label_HW = torch.where(above_HW, at_HW + first, label_HW)
        most_HW = torch.maximum(most_HW, part_HW)
    return label_HW


def _with_probabilities(total: Tensor | None, logits_Yhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Add the softmax of enlarged logits to a sum (Y, H, W), in place; None is an empty sum."""
    classes = len(logits_Yhw)
    parts = range(0, classes, CLASSES_AT_ONCE)
    if total is None:
        total = logits_Yhw.new_zeros(classes, *size)
    sum_HW = total.new_full(size, -torch.inf)  # the logarithm of the denominator
    for first in parts:
        sum_HW = sum_HW.logaddexp(_enlarged_part(logits_Yhw, first, size).logsumexp(dim=0))
    for first in parts:
        part_YHW = _enlarged_part(logits_Yhw, first, size)
        total[first : first + CLASSES_AT_ONCE] += part_YHW.sub_(sum_HW).exp_()
    return total


def _enlarged_part(logits_Yhw: Tensor, first: int, size: tuple[int, int]) -> Tensor:
    """Resize the logits of some classes, from the first one; (Y, H, W), memory of its own."""
    part_Yhw = logits_Yhw[first : first + CLASSES_AT_ONCE]
    if tuple(part_Yhw.shape[-2:]) == size:
        return part_Yhw.clone()
    return F.interpolate(part_Yhw[None], size=size, mode="bilinear", align_corners=False)[0]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start so that they cover a length, the last one flush with its end."""
    count = max(0, -(-(length - window) // stride)) + 1
    return [min(at * stride, length - window) for at in range(count)]
