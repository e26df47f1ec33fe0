"""The fewest bytes a token that keep a mean cosine, tried on images that are not fitted to.

Legend: n images, N tokens (CLS first), D target width.
"""

import math
from collections.abc import Callable

import torch

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.registry import LEAST_BYTES
from milan_pipeline.errors import ConfigError

HELD_OUT = 4
"""One image of so many is held out."""
FIRST_RATIO = 12
"""The size that is tried first is so many times smaller than float16."""
Fit = Callable[[int, torch.Tensor], Codec]


def smallest_size(fit: Fit, tokens_nND: torch.Tensor, cosine: float, *, most: int) -> int:
    """Return the fewest bytes a token whose mean cosine on held-out images is high enough.

    Few sizes are tried: the next one is where a line through the last two losses, of logarithms,
    reaches the wanted loss.

    Args:
        fit: fits a codec of so many bytes to tokens (n, N, D).
        tokens_nND: the sample; of a single image, that is measured, too.
        cosine: the mean cosine that is wanted.
        most: the most bytes a token.

    Raises:
        ConfigError: so many bytes are not enough.
    """
    is_held_out_n = torch.arange(len(tokens_nND)) % HELD_OUT == 0
    fitted_nND, held_out_nND = tokens_nND[~is_held_out_n], tokens_nND[is_held_out_n]
    if not len(fitted_nND):
        fitted_nND = held_out_nND
    losses: dict[int, float] = {}
    low, high = LEAST_BYTES - 1, most + 1  # not enough, enough; both are not tried
    size = min(most, max(LEAST_BYTES, 2 * most // FIRST_RATIO))
    while high - low > 1:
        losses[size] = _loss(fit(size, fitted_nND), held_out_nND)
        low, high = (low, size) if losses[size] <= 1 - cosine else (size, high)
        size = min(max(_guess(losses, 1 - cosine), low + 1), high - 1)
    if high > most:
        raise ConfigError(
            f"--codec cosine:{cosine:g} is not kept by {most} bytes a token, which is what int8 "
            "takes; give --codec int8, or a lower cosine"
        )
    return high


def _loss(codec: Codec, tokens_nND: torch.Tensor) -> float:
    """Return one less the mean cosine."""
    decoded_nND = codec.decode(*codec.encode(tokens_nND))
    cosine_nN = torch.cosine_similarity(decoded_nND.double(), tokens_nND.double(), dim=-1)
    return 1 - float(cosine_nN.mean())


def _guess(losses: dict[int, float], wanted: float) -> int:
    """Return where the line through the two losses that are nearest to the wanted one meets it."""
    log = {size: math.log(max(loss, 1e-12)) for size, loss in losses.items()}
    goal = math.log(wanted)
    near = sorted(log, key=lambda size: abs(log[size] - goal))[:2]
    if len(near) == 1:  # a byte takes about a fifth of the loss at small sizes, less at large ones
        return round(near[0] * (1 + (log[near[0]] - goal) / 3))
    first, second = near
    slope = (log[second] - log[first]) / (second - first)
    return round(first + (goal - log[first]) / slope) if slope < 0 else first + 1
