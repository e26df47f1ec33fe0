"""Decode masks to labels: the class of each pixel, or `IGNORED`.

Legend: H height, W width.
"""

import dataclasses
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from milan_pipeline.errors import ConfigError, DataError, reason_of
from milan_pipeline.images.decode import MAX_PIXELS, plain_png
from milan_pipeline.images.mask_files import pixel_fault
from milan_pipeline.images.orientation import UPRIGHT, orientation
from milan_pipeline.shards.random_access import IMAGE_MEMBER

IGNORED = 255
"""The label of a pixel that is neither trained nor scored on."""

MASK_MEMBER = "mask"
MAX_CLASSES = 255
TURN = "turn the image itself, for instance by ImageMagick's `mogrify -auto-orient`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """What the values of a mask mean.

    Attributes:
        classes: how many there are, from 0.
        ignore_index: value in the masks of pixels that do not count.
        reduce_zero_label: 0 does not count either, and 1 is the first class: ADE20K's masks.
        trained: whether `classes` are those of a trained model, which cannot be changed.
    """

    classes: int
    ignore_index: int
    reduce_zero_label: bool
    trained: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= MAX_CLASSES:
            raise ConfigError(
                f"--classes {self.classes} is not within 1 to {MAX_CLASSES}, which masks of 8 bits "
                "can tell apart; give fewer"
            )


class Labels:
    """Decode masks, and number their classes from 0.

    Attributes:
        classes: how many there are.
    """

    def __init__(self, config: LabelConfig) -> None:
        first = 1 if config.reduce_zero_label else 0
        self.classes = config.classes
        self._reduces, self._trained = config.reduce_zero_label, config.trained
        self._label_of = np.arange(-first, 256 - first)
        self._known = (self._label_of >= 0) & (self._label_of < config.classes)
        ignored = [config.ignore_index, *range(first)]
        self._label_of[ignored] = IGNORED
        self._known[ignored] = True

    def __call__(self, sample: dict[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a sample's labels, uint8 (H, W).

        Args:
            sample: `mask`, the bytes of a PNG of one number a pixel, grey or with a palette.
            size: H and W of its image.

        Raises:
            DataError: it is no such PNG, of another size, or holds a class that there is not; the
                sample is named.
        """
        name = f"{sample['__url__']}, mask of {sample['__key__']!r}"
        values_HW = _values(sample[MASK_MEMBER], name)
        if values_HW.shape != size:
            ours, theirs = (" x ".join(map(str, s)) for s in (values_HW.shape, size))
            raise DataError(f"{name} has {ours} pixels and its image {theirs}; {_alike(sample)}")
        unknown = np.flatnonzero((np.bincount(values_HW.ravel(), minlength=256) > 0) & ~self._known)
        if len(unknown):
            raise DataError(
                f"{name} has the value {unknown[-1]}, which is none of the {self.classes} classes "
                f"nor ignored; {self._remedy(int(unknown[-1]))}"
            )
        labels_HW: NDArray[np.uint8] = self._label_of.astype(np.uint8)[values_HW]
        return labels_HW

    def _remedy(self, value: int) -> str:
        """Say what to do about a value that is no class."""
        first, ignore = int(self._reduces), f"--ignore-index {value} if it marks what has no class"
        if value == self.classes + first:
            zero = "" if self._reduces else "--reduce-zero-label if 0 marks what has no class, "
            if self._trained:
                return f"give {zero}or {ignore}" if zero else f"give {ignore}"
            return f"give {zero}--classes {self.classes + 1} if it is one more, or {ignore}"
        last = self.classes - 1 + first
        return f"renumber the classes in the masks, from {first} to {last}, or give {ignore}"


def _alike(sample: Mapping[str, Any]) -> str:
    """Say how a mask and its image come to be of one size."""
    if orientation(sample.get(IMAGE_MEMBER, b"")) == UPRIGHT:
        return "make them alike"
    return f"the image's EXIF turns it, which is not done here: {TURN}"


def _values(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode a PNG whose pixels are numbers; a palette is ignored."""
    try:
        with PngImageFile(BytesIO(plain_png(data))) as image:
            fault, pixels = pixel_fault(data), image.width * image.height
            if fault is None and pixels <= MAX_PIXELS:
                return np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        reason = reason_of(error)
        raise DataError(f"{name} is no sound PNG ({reason}); replace it") from error
    raise DataError(
        f"{name} {fault or f'has {pixels} pixels, over the limit of {MAX_PIXELS}; scale it'}"
    )
