"""Warn of 16-bit pictures that use the low part of their range alone.

X-ray, microscope and depth cameras give 10 to 14 bits, which are often saved in a 16-bit PNG as
they are. Of 16 bits, decoding keeps the high byte: such a picture is almost black, and all are
alike.
"""

import dataclasses
import functools
import logging

LARGEST = 2**16 - 1
DARK = 2**14
"""A picture all of whose values are below this, a quarter of the range, is suspicious."""
DEPTH_OF_PNG = slice(24, 25)

MOST_PROBED = 100
"""Images that are decoded for this alone; packing decodes none otherwise."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Seen:
    """What this process has seen and said so far.

    Attributes:
        told: whether it has warned.
        left: images that it may still decode for this alone.
    """

    told: bool = False
    left: int = MOST_PROBED


seen = functools.cache(Seen)
"""Returns the one object of this process; `cache_clear` forgets it."""


def has_16_bits(data: bytes) -> bool:
    """Tell whether a PNG, JPEG or WebP is a PNG of 16 bits a channel."""
    return data.startswith(b"\x89PNG") and data[DEPTH_OF_PNG] == b"\x10"


def may_probe() -> bool:
    """Tell whether another image may be decoded only to look at its depth, and count it."""
    seen().left -= 1
    return seen().left >= 0 and not seen().told


def warn_if_dark(largest: int, name: str) -> None:
    """Warn of a 16-bit picture that is almost black; once a process, since others are like it.

    Args:
        largest: its largest value; 0 is a picture that is meant to be black.
        name: what the warning calls it.
    """
    if seen().told or not 0 < largest < DARK:
        return
    seen().told = True
    bits = largest.bit_length()
    logger.warning(
        "the 16-bit image %r has no value above %d of %d, so that it is seen as almost black, and "
        "others may be; if the images have %d bits, multiply their values by %d and save them "
        "again (docs/own-images.md shows how)",
        name, largest, LARGEST, bits, 2 ** (16 - bits),
    )  # fmt: skip
