"""Make a classifier's views of labelled images, with timm's own transforms.

Pixels stay uint8, as with timm's prefetching loader; they are normalised on the device.

Legend: B batch, C channels, H height, W width.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps
from timm.data import auto_augment
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import Compose

from milan_pipeline.core.keyed_random import seeded_globals
from milan_pipeline.data.labelled import decoded_image
from milan_pipeline.errors import ConfigError, reason_of
from milan_pipeline.evaluate.evaluation_view import INTERPOLATION, evaluation_view

SECTIONS = {
    "rand": r"(m|n|mmax|inc)\d+|(p|mstd)\d*\.?\d+|t(weights|3aw?)",
    "augmix": r"(m|w|b)\d+|d-?\d+|(a|mstd)\d*\.?\d+",
}
"""What timm understands between the dashes of these augmentations' names."""


class LabelledBatch(NamedTuple):
    """One rank's part of a global batch.

    Attributes:
        images_BCHW: uint8 pixels.
        labels_B: int64 class numbers.
        keys: the samples.
    """

    images_BCHW: Tensor
    labels_B: Tensor
    keys: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How views are made of images.

    Attributes:
        image_size: height and width of a view, in pixels.
        mean: of the pixels, in [0, 1]: the colour of what a distortion leaves empty.
        augment: timm's name of an automatic augmentation; empty is none.
        min_scale: smallest share of an image's area that a training view shows.
        crop_pct: share of the resized image's side that evaluation sees.
        seed: of the augmentation.
    """

    image_size: int
    mean: tuple[float, ...]
    augment: str
    min_scale: float = 0.08
    crop_pct: float
    seed: int


class TrainingViews:
    """Turn samples into augmented examples: random crop, flip, automatic augmentation.

    A stage of a pipeline. What is drawn for a sample is a function of (seed, epoch, key) alone.
    Erasing and mixing are left to the device.
    """

    def __init__(self, config: ViewConfig) -> None:
        """Make timm's transforms.

        Raises:
            ConfigError: timm has no such automatic augmentation.
        """
        self._seed = config.seed
        _require_known_sections(config.augment)
        try:
            transform = create_transform(
                config.image_size,
                is_training=True,
                scale=(config.min_scale, 1.0),
                color_jitter=0.0,
                auto_augment=config.augment or None,
                interpolation=INTERPOLATION,
                mean=config.mean,
                use_prefetcher=True,
            )
        except (AssertionError, ValueError, LookupError, TypeError) as error:  # timm's, of names
            raise ConfigError(
                f"--augment {config.augment!r} is no augmentation that timm has "
                f"({reason_of(error)}); give one such as 'rand-m9-mstd0.5-inc1', or ''"
            ) from error
        for operation in _operations(transform):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = posterise
        self._transform: Callable[[Image.Image], Tensor] = transform

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[LabelledBatch]:
        """Yield examples without a batch dimension, in the samples' order.

        Raises:
            BadImageError: an image cannot be decoded.
        """
        for sample in samples:
            key, image = sample["__key__"], decoded_image(sample)
            with seeded_globals("augment", self._seed, sample["epoch"], key):
                view_CHW = self._transform(image)
            yield LabelledBatch(view_CHW, torch.tensor(sample["label"]), [key])


class EvaluationViews:
    """Turn a sample into the view that evaluation shows; see `evaluation_view`."""

    def __init__(self, config: ViewConfig) -> None:
        self._view = evaluation_view(config.image_size, config.crop_pct)

    def __call__(self, sample: dict[str, Any]) -> Tensor:
        """Return uint8 (C, H, W).

        Raises:
            BadImageError: the image cannot be decoded.
        """
        return self._view(decoded_image(sample))


def _require_known_sections(augment: str) -> None:
    """Refuse sections of an augmentation's name that timm would pass over without a word.

    Raises:
        ConfigError: there is one.
    """
    kind, *sections = augment.split("-")
    if kind not in SECTIONS:
        return  # timm knows whether it has it
    for section in sections:
        if not re.fullmatch(SECTIONS[kind], section):
            raise ConfigError(
                f"--augment {augment!r} has the section {section!r}, which timm does not know; "
                "give one such as 'rand-m9-mstd0.5-inc1', or ''"
            )


def posterise(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep some bits of each channel, as timm's `posterize` does; with 0 bits the image is black.

    RandAugment of magnitude 9 ± 0.5 sometimes asks for 0 bits, which Pillow 13 refuses.
    """
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else image.point(lambda _: 0)


def _operations(transform: Compose) -> Iterator[Any]:
    """Yield the operations of timm's automatic augmentations: RandAugment's, or a policy's."""
    for step in transform.transforms:
        yield from getattr(step, "ops", ())
        for together in getattr(step, "policy", ()):
            yield from together
