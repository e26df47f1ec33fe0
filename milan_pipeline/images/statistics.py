"""Mean and standard deviation by which a model's pixels are normalised; no torch here."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class Statistics(NamedTuple):
    """Of each channel of pixels in [0, 1]."""

    mean: list[float]
    std: list[float]

    def __str__(self) -> str:
        """Write them as `parsed_statistics` reads them."""
        return "/".join(",".join(f"{value:g}" for value in values) for values in self)


NAMED = {
    "imagenet": Statistics(list(IMAGENET_MEAN), list(IMAGENET_STD)),
    "openai": Statistics(list(OPENAI_MEAN), list(OPENAI_STD)),
}


def parsed_statistics(text: str) -> Statistics:
    """Read "imagenet", "openai" or MEAN/STD, each of one number or of three with commas.

    Raises:
        ValueError: it is none of these, or not those of pixels in [0, 1]; the message says which.
    """
    if text in NAMED:
        return NAMED[text]
    mean, _, std = text.partition("/")
    try:
        found = [[float(word) for word in words.split(",")] for words in (mean, std)]
    except ValueError as error:
        raise ValueError("is no MEAN/STD") from error
    mean_C, std_C = (values * 3 if len(values) == 1 else values for values in found)
    if fault := fault_of_statistics(mean_C, std_C):
        raise ValueError(fault)
    return Statistics(mean_C, std_C)


def fault_of_statistics(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Say what keeps numbers from being statistics of pixels in [0, 1]; None if nothing does."""
    if len(mean) != 3 or len(std) != 3:
        return "does not have three channels"
    if not all(math.isfinite(value) for value in (*mean, *std)):
        return "has a number that is not finite"
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        return "is not of pixels from 0 to 1, of which a mean is within 0 to 1 and a std above 0"
    return None
