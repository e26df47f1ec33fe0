"""The fewest bytes an image that keep a mean cosine, tried on images that are not fitted to.

Legend: n images, N tokens (CLS first), D target width.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.spectrum import directions
from milan_pipeline.errors import ConfigError

HELD_OUT, LEAST_IMAGES = 8, 16
"""One image of so many is held out, if there are so many images."""
FIRST_RATIO = 24
"""The size that is tried first is so many times smaller than float16."""
CLOSE = 100
"""The size that is found is within one part of so many of the smallest."""
AT_ONCE = 64
CodecT = TypeVar("CodecT", bound=Codec)


def parted(tokens_nND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return directions of the images to fit to, and of those to measure on, on the host.

    Of few images, all are both. Half a gigabyte of targets is usual, so nothing else of that size
    is made.
    """
    if len(tokens_nND) < LEAST_IMAGES:
        direction_nND = directions(tokens_nND).cpu()
        return direction_nND, direction_nND
    is_held_out_n = torch.arange(len(tokens_nND)) % HELD_OUT == 0
    fitted_n, held_out_n = (each.nonzero()[:, 0] for each in (~is_held_out_n, is_held_out_n))
    return _directions_of(tokens_nND, fitted_n), _directions_of(tokens_nND, held_out_n)


def _directions_of(tokens_nND: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    direction_nND = torch.empty((len(rows), *tokens_nND.shape[1:]))
    for places in torch.split(torch.arange(len(rows)), AT_ONCE):
        of_part = tokens_nND[rows[places].to(tokens_nND.device)]
        direction_nND[places] = directions(of_part).cpu()
    return direction_nND


def loss_of(codec: Codec, tokens_nND: torch.Tensor) -> float:
    """Return one less the mean cosine."""
    cosines = [
        torch.cosine_similarity(codec.decode(*codec.encode(part)).double(), part.double(), dim=-1)
        for part in torch.split(tokens_nND, AT_ONCE)
    ]
    return 1 - float(torch.cat(cosines).mean())


def smallest_size(
    fit: Callable[[int], CodecT | None],
    loss: Callable[[CodecT], float],
    cosine: float,
    *,
    most: int,
    first: int | None = None,
) -> tuple[int, CodecT] | None:
    """Return about the fewest bytes that keep a mean cosine, and their codec; None if none does.

    Few sizes are tried: the next one is where a line through the last two losses, of logarithms,
    reaches the wanted loss.

    Args:
        fit: fits a codec of so many bytes an image; None if these are too few.
        loss: one less the mean cosine of a codec.
        cosine: the mean cosine that is wanted.
        most: the most bytes.
        first: the bytes that are tried first.
    """
    losses: dict[int, float] = {}
    low, high, found = 0, most + 1, None  # not enough, enough; both are not tried
    size = min(most, first or max(1, 2 * most // FIRST_RATIO))
    while high - low > max(1, high // CLOSE):
        codec = fit(size)
        losses[size] = math.inf if codec is None else loss(codec)
        if losses[size] <= 1 - cosine:
            high, found = size, codec
        else:
            low = size
        step = max(1, high // CLOSE)
        size = min(max(_guess(losses, 1 - cosine), low + 1), max(low + 1, high - step))
    return None if found is None else (high, found)


def require_kept(found: tuple[int, CodecT] | None, cosine: float) -> tuple[int, CodecT]:
    """Return what was found.

    Raises:
        ConfigError: nothing was.
    """
    if found is None:
        raise ConfigError(
            f"--codec cosine:{cosine:g} is not kept by the bytes that int8 takes; give --codec "
            "int8, or a lower cosine"
        )
    return found


def _guess(losses: dict[int, float], wanted: float) -> int:
    """Return where the line through the two losses that are nearest to the wanted one meets it.

    Both are logarithms: a loss is about a power of the size.
    """
    log = {size: math.log(max(loss, 1e-12)) for size, loss in losses.items() if math.isfinite(loss)}
    if not log:
        return 2 * max(losses)
    goal = math.log(wanted)
    near = sorted(log, key=lambda size: abs(log[size] - goal))[:2]
    if len(near) == 1:
        return max(1, round(near[0] * math.exp(min(2.0, max(-2.0, (log[near[0]] - goal) / 1.6)))))
    first, second = (math.log(size) for size in near)
    slope = (log[near[1]] - log[near[0]]) / (second - first)
    if slope >= 0:
        return near[0] + 1
    # A little more than the line says, so that the next one is enough and the search can end.
    at = first + (goal - log[near[0]]) / slope
    return max(1, math.ceil(math.exp(min(at, 40.0)) * (1 + 0.4 / CLOSE)))
