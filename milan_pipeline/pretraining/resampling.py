"""Targets and priors of one grid on another.

A patch of the new grid gets the mean of the old ones below it, weighted by their distance: bilinear
interpolation between the centres of patches, with a wider window where the new grid is coarser
(antialiasing). Weights add up to 1, so the targets keep their mean; CLS stays as it is.

Legend: B batch, N = 1 + L tokens (CLS first, then L patches row-major), D target width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import SMALLEST_FLOAT

Grid = tuple[int, int]


def resampled_tokens(tokens_BND: torch.Tensor, grid: Grid, onto: Grid) -> torch.Tensor:
    """Return targets on another grid, float32.

    Args:
        tokens_BND: float32 targets.
        grid: their rows and columns of patches.
        onto: rows and columns that are wanted.
    """
    if grid == onto:
        return tokens_BND
    cls_B1D, patches_BLD = tokens_BND[:, :1], tokens_BND[:, 1:]
    patches_BDL = patches_BLD.transpose(1, 2)
    patches_BDHW = patches_BDL.reshape(*patches_BDL.shape[:2], *grid)
    found_BDHW = F.interpolate(
        patches_BDHW, size=onto, mode="bilinear", align_corners=False, antialias=True
    )
    return torch.cat([cls_B1D, found_BDHW.flatten(2).transpose(1, 2)], dim=1)


def resampled_prior(prior_L: NDArray[np.float32], grid: Grid, onto: Grid) -> NDArray[np.float32]:
    """Return a mask prior on another grid, with the same sum; arguments as for tokens."""
    if grid == onto:
        return prior_L
    prior_11HW = torch.from_numpy(prior_L.reshape(1, 1, *grid).copy())
    found_11HW = F.interpolate(
        prior_11HW, size=onto, mode="bilinear", align_corners=False, antialias=True
    )
    found_L = found_11HW.flatten().numpy().clip(SMALLEST_FLOAT)
    scaled_L: NDArray[np.float32] = found_L * (prior_L.sum() / found_L.sum())
    return scaled_L
