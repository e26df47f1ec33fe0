"""Views as a pure function of (seed, key, view): crops and colours; no pixels, no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.colour_changes import KINDS, ColourChange, draw_colours

TRIES = 10
VIEW_POLICIES = ("random-resized-crop", "center")
TEACHER_SEES = ("view", "clean")
PLACE_NUMBERS = 4
"""Of a view without colours: top, left, height, width."""
Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Box:
    """A crop in source pixels, flipped left to right afterwards if `flip`, then its colours."""

    top: int
    left: int
    height: int
    width: int
    flip: bool
    colours: ColourChange | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """What a target store has of it, beside the flip: (4,), with colours (11,)."""
        return (self.top, self.left, self.height, self.width, *(self.colours or ()))


def box_of(numbers: Sequence[float], *, flip: bool) -> Box:
    """Rebuild the box that a target store has; the reverse of `Box.numbers`."""
    top, left, height, width = map(int, numbers[:PLACE_NUMBERS])
    colours = ColourChange(*numbers[PLACE_NUMBERS:]) if len(numbers) > PLACE_NUMBERS else None
    return Box(top, left, height, width, bool(flip), colours)


def view_numbers(parameters: Mapping[str, Any]) -> int:
    """Return how many numbers a box of the policy that an identity records has."""
    return PLACE_NUMBERS + (len(ColourChange._fields) if parameters.get("colours") else 0)


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
        colours: the probability of each change of colours, by its kind; see `colour_changes`.
        teacher_sees: "view", or "clean": the crop without these changes, which the student sees.

    Raises:
        ConfigError: the name is unknown, the scale or a probability is not within (0, 1], or other
            parts do not fit.
    """

    name: str = "random-resized-crop"
    seed: int = 0
    scale: tuple[float, float] = (0.2, 1.0)
    colours: tuple[tuple[str, float], ...] = ()
    teacher_sees: str = "view"

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
        if self.colours and self.name == "center":
            raise ConfigError(
                "--view-policy center has no colours, which random-resized-crop alone takes; leave "
                "them out"
            )
        if self.teacher_sees == "clean" and not self.colours:
            raise ConfigError(
                f"--teacher-sees clean needs changes of colours, and --view-policy {self.name} has "
                f"none; give {self.name}:jitter=0.8, for instance, or leave it out"
            )

    @classmethod
    def parse(
        cls, text: str, *, seed: int, scale: tuple[float, float], teacher_sees: str = "view"
    ) -> "ViewPolicy":
        """Read `NAME` or `NAME:KIND=PROBABILITY,...`.

        Raises:
            ConfigError: it is of another form, or parts do not fit.
        """
        name, colon, listed = text.partition(":")
        colours: dict[str, float] = {}
        for part in listed.split(",") if colon else []:
            kind, _, number = part.partition("=")
            if kind in colours:
                raise ConfigError(f"--view-policy {text} has {kind} twice; give it once")
            try:
                colours[kind] = float(number)
            except ValueError:
                colours[kind] = math.nan
            if kind not in KINDS or not 0 < colours[kind] <= 1:
                raise ConfigError(
                    f"--view-policy {text} has {part!r}; give probabilities above 0, and at most "
                    f"1, of {', '.join(KINDS)}, such as {name}:jitter=0.8,grey=0.2"
                )
        ordered = tuple((kind, colours[kind]) for kind in KINDS if kind in colours)
        return cls(name=name, seed=seed, scale=scale, colours=ordered, teacher_sees=teacher_sees)

    @property
    def text(self) -> str:
        """What `parse` reads."""
        listed = ",".join(f"{kind}={probability!r}" for kind, probability in self.colours)
        return f"{self.name}:{listed}" if listed else self.name

    def box(self, height: int, width: int, key: str, view: int) -> Box:
        """Cut view number `view` of the sample `key`, an image of height x width pixels."""
        if self.name == "center":
            return center_crop(height, width)
        box = random_resized_crop(
            height, width, seed=self.seed, key=key, view=view, scale=self.scale
        )
        if not self.colours:
            return box
        return replace(
            box, colours=draw_colours(dict(self.colours), seed=self.seed, key=key, view=view)
        )

    @property
    def numbers(self) -> int:
        """How many numbers a box has."""
        return view_numbers(self.as_dict())

    def for_teacher(self, box: Box) -> Box:
        """Return what the teacher sees of a view."""
        return replace(box, colours=None) if self.teacher_sees == "clean" else box

    def as_dict(self) -> dict[str, Any]:
        """Describe the policy for the identity; what does not change the views is left out."""
        if self.name == "center":
            return {"name": self.name}
        known: dict[str, Any] = {"name": self.name, "seed": self.seed, "scale": list(self.scale)}
        if self.colours:
            known["colours"] = dict(self.colours)
        if self.teacher_sees != "view":
            known["teacher_sees"] = self.teacher_sees
        return known


def policy_of(parameters: Mapping[str, Any]) -> ViewPolicy:
    """Rebuild the policy that an identity records.

    Raises:
        ConfigError: this version does not know it.
    """
    values = dict(parameters)
    unknown = values.keys() - {field.name for field in fields(ViewPolicy)}
    if unknown:
        raise ConfigError(
            f"views were cut with {', '.join(sorted(unknown))}, which this version does not know; "
            "use the version that cut them"
        )
    if "scale" in values:
        low, high = values["scale"]
        values["scale"] = (low, high)
    if "colours" in values:
        values["colours"] = tuple(values["colours"].items())
    return ViewPolicy(**values)


def pixels_words(interpolation: Interpolation) -> str:
    """Say in an identity's `preprocessing.pixels` how a teacher's views are made."""
    return f"pillow-rgb, {interpolation} antialiased, uint8"


def stated_interpolation(preprocessing: Mapping[str, Any]) -> Interpolation:
    """Return the interpolation that an identity's `preprocessing` states; see `pixels_words`."""
    return "bilinear" if preprocessing.get("pixels") == pixels_words("bilinear") else "bicubic"
