"""Which patches stay visible: semantic-aware sampling, and two ways that ignore the image.

Legend: L patches of the grid, K kept.
"""

import math

import numpy as np
import numpy.typing as npt

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.errors import ConfigError, DataError

Mask = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

MASKINGS = ("semantic", "random", "block")
SMALLEST_BLOCK = 16  # patches
LEAST_ASPECT = 0.3  # height over width; its inverse is the largest


def kept_count(patches: int, mask_ratio: float) -> int:
    """Return how many of `patches` stay visible: int(patches * (1 - mask_ratio)).

    Raises:
        ConfigError: the ratio would keep no patch or mask none.
    """
    kept = int(patches * (1 - mask_ratio)) if 0 < mask_ratio < 1 else 0
    if not 1 <= kept < patches:
        raise ConfigError(
            f"--mask-ratio {mask_ratio} must keep at least one of {patches} patches and mask at "
            "least one; choose a ratio nearer to 0.75"
        )
    return kept


def draw_mask(
    masking: str,
    prior_L: npt.NDArray[np.float32],
    kept: int,
    *,
    grid: tuple[int, int],
    seed: int,
    epoch: int,
    key: str,
) -> Mask:
    """Draw the visible patches of one sample, a pure function of the arguments.

    Args:
        masking: "semantic": by the prior (`sample_kept`). "random": all patches equally (MAE, arXiv
            2111.06377, section 3). "block": rectangles are masked (`sample_outside_blocks`).
        prior_L: float32; "random" and "block" use only its length.
        kept: K, as `kept_count` gives it.
        grid: rows and columns of patches; their product is L.
        seed: of the run.
        epoch: each epoch has a draw of its own.
        key: of the sample; samples with the same key, of two foreign shards say, get the same mask.

    Returns:
        The kept (K,) and the masked (L - K,) patch indices, int64, each in ascending order.

    Raises:
        ConfigError: there is no such masking.
        DataError: a prior is negative or not finite.
    """
    if masking == "semantic":
        return sample_kept(prior_L, kept, seed=seed, epoch=epoch, key=key)
    if masking == "random":
        return sample_kept(np.ones_like(prior_L), kept, seed=seed, epoch=epoch, key=key)
    if masking == "block":
        return sample_outside_blocks(grid, kept, seed=seed, epoch=epoch, key=key)
    raise ConfigError(f"--masking {masking!r} is unknown; choose one of {', '.join(MASKINGS)}")


def sample_kept(
    prior_L: npt.NDArray[np.float32], kept: int, *, seed: int, epoch: int, key: str
) -> Mask:
    """Draw the visible patches of one sample, a pure function of the arguments.

    Patches are drawn without replacement, each draw with a probability proportional to the
    prior, among the patches that are left. (MILAN, arXiv 2208.06049, section 3.3.) An exponential
    race has this distribution: patch i finishes after Exp(1) / prior_i, and the first `kept` to
    finish are kept.

    Arguments and result are those of `draw_mask`. The priors need not sum to 1; zeros count as the
    smallest normal float32, so that these patches are kept last.

    Raises:
        DataError: a prior is negative or not finite.
    """
    if not (np.isfinite(prior_L) & (prior_L >= 0)).all():
        raise DataError(
            f"the mask prior of {key!r} has negative or non-finite values; "
            "extract and pack its target again"
        )
    weights_L = np.maximum(prior_L, np.finfo(np.float32).tiny).astype(np.float64)
    generator = keyed_generator("mask", seed, epoch, key)
    finish_L = generator.standard_exponential(len(weights_L)) / weights_L
    order_L = np.argsort(finish_L, kind="stable")
    return np.sort(order_L[:kept]), np.sort(order_L[kept:])


def sample_outside_blocks(
    grid: tuple[int, int], kept: int, *, seed: int, epoch: int, key: str
) -> Mask:
    """Mask rectangles of patches until exactly all but `kept` are masked.

    (BEiT, arXiv 2106.08254, algorithm 1: a block has at least 16 patches and at most as many as are
    left to mask, an aspect ratio of 0.3 to 1 / 0.3, and any position; blocks may overlap. All
    samples must have the same number of masked patches. So a block that would mask too many is cut
    at its lower end, and the last blocks may be smaller than 16.)

    Arguments and result are those of `draw_mask`.
    """
    rows, columns = grid
    generator = keyed_generator("mask", seed, epoch, key)
    masked_HW = np.zeros(grid, dtype=bool)
    left = rows * columns - kept
    while left:
        area = generator.uniform(min(SMALLEST_BLOCK, left), left)
        aspect = generator.uniform(LEAST_ASPECT, 1 / LEAST_ASPECT)
        height = min(rows, max(1, round(math.sqrt(area * aspect))))
        width = min(columns, max(1, round(math.sqrt(area / aspect))))
        top = generator.integers(rows - height, endpoint=True)
        start = generator.integers(columns - width, endpoint=True)
        block_HW = np.zeros_like(masked_HW)
        block_HW[top : top + height, start : start + width] = True
        new = np.flatnonzero(block_HW & ~masked_HW)[:left]
        masked_HW.flat[new] = True
        left -= len(new)
    return np.flatnonzero(~masked_HW), np.flatnonzero(masked_HW)
