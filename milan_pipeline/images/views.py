"""Crop geometry as a pure function of (seed, key, view): no pixels, no files, no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.errors import ConfigError

TRIES = 10
VIEW_POLICIES = ("random-resized-crop", "center")


@dataclass(frozen=True)
class Box:
    """A crop in source pixels, flipped left to right afterwards if `flip`."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def random_resized_crop(
    height: int,
    width: int,
    *,
    seed: int,
    key: str,
    view: int,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip_probability: float = 0.5,
) -> Box:
    """Draw the crop of torchvision's `RandomResizedCrop`, the same on every call and machine.

    A share of the area and an aspect ratio (log-uniform) are drawn until they fit, ten times at
    most; then the largest central crop within `ratio` is taken. Only plain uniform draws are used,
    since numpy may change how it derives others from them.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        seed: the run's seed for views.
        key: names the sample.
        view: number of the view, from 0.
        scale: bounds of the crop's share of the image's area.
        ratio: bounds of the crop's width divided by its height.
        flip_probability: of a left-right flip.

    Returns:
        A box inside the image.
    """
    flip_draw, *draws = keyed_generator("view", seed, key, view).random(1 + 4 * TRIES).tolist()
    flip = flip_draw < flip_probability
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for first in range(0, 4 * TRIES, 4):
        area_draw, ratio_draw, top_draw, left_draw = draws[first : first + 4]
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area_draw)
        aspect = math.exp(log_low + (log_high - log_low) * ratio_draw)
        crop_height, crop_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top = int(top_draw * (height - crop_height + 1))
            left = int(left_draw * (width - crop_width + 1))
            return Box(top, left, crop_height, crop_width, flip)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    return _central(
        height, width, min(height, round(width / aspect)), min(width, round(height * aspect)), flip
    )


def center_crop(height: int, width: int) -> Box:
    """Take the largest central square, without a flip."""
    side = min(height, width)
    return _central(height, width, side, side, flip=False)


def _central(height: int, width: int, crop_height: int, crop_width: int, flip: bool) -> Box:
    return Box(
        (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width, flip
    )


@dataclass(frozen=True, kw_only=True)
class ViewPolicy:
    """How views are cut; part of the identity of targets.

    Attributes:
        name: one of `VIEW_POLICIES`.
        seed: of random crops.
        scale: bounds of a random crop's share of the image's area.

    Raises:
        ConfigError: the name is unknown or the scale is not within (0, 1].
    """

    name: str = "random-resized-crop"
    seed: int = 0
    scale: tuple[float, float] = (0.2, 1.0)

    def __post_init__(self) -> None:
        if self.name not in VIEW_POLICIES:
            raise ConfigError(
                f"view policy {self.name!r} is unknown; choose one of {', '.join(VIEW_POLICIES)}"
            )
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ConfigError(
                f"crop scale {low}, {high} is not a range within (0, 1]; give the smallest and "
                "the largest share of the image's area"
            )

    def box(self, height: int, width: int, key: str, view: int) -> Box:
        """Cut view number `view` of the sample `key`, an image of height x width pixels."""
        if self.name == "center":
            return center_crop(height, width)
        return random_resized_crop(
            height, width, seed=self.seed, key=key, view=view, scale=self.scale
        )

    def as_dict(self) -> dict[str, Any]:
        """Describe the policy for the identity; what does not change the views is left out."""
        if self.name == "center":
            return {"name": self.name}
        return {"name": self.name, "seed": self.seed, "scale": list(self.scale)}


def policy_of(parameters: Mapping[str, Any]) -> ViewPolicy:
    """Rebuild the policy that an identity records.

    Raises:
        ConfigError: this version does not know it.
    """
    values = dict(parameters)
    if "scale" in values:
        low, high = values["scale"]
        values["scale"] = (low, high)
    return ViewPolicy(**values)
