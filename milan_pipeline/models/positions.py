"""Positions of a ViT: the fixed sine-cosine table, and any table for another grid of patches.

MILAN's and MAE's fine-tuning (`interpolate_pos_embed`) and the ADE20K code of BeiT and MAE in
mmsegmentation interpolate by torch's bicubic, align_corners=False, without antialiasing. timm
antialiases by default. torch then takes another kernel, even to enlarge: where a 14 x 14 grid
becomes 16 x 16, sine-cosine positions differ by 1.6% of their norm.

Legend: P tokens that are no patches (CLS, registers), L patches, E width.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from milan_pipeline.errors import ConfigError

Grid = tuple[int, int]


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Compute the fixed 2-D sine-cosine positions of a patch grid, CLS (zeros) first.

    The first half of the channels encodes the column, the second half the row; each half is the
    sines, then the cosines, of position / 10000^(i / (width / 4)). (MAE, arXiv 2111.06377,
    following Vaswani et al., section 3.5, once per axis.)

    Args:
        grid: rows and columns of patches.
        width: channels.

    Returns:
        float32 (1, 1 + rows * columns, width), patches row-major.

    Raises:
        ConfigError: the width is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(
            f"a width of {width} cannot hold sine-cosine positions; choose a multiple of 4"
        )
    rows, columns = grid
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))

    def axis(count: int) -> Tensor:
        angles = torch.outer(torch.arange(count, dtype=torch.float64), frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    table = torch.cat(
        [axis(columns).repeat(rows, 1), axis(rows).repeat_interleave(columns, dim=0)], dim=1
    )
    return torch.cat([torch.zeros_like(table[:1]), table])[None].float()


def resample_positions(table_1NE: Tensor, grid: Grid, new_grid: Grid) -> Tensor:
    """Resample positions to another grid; those of tokens that are no patches stay.

    Args:
        table_1NE: (1, P + L, E), patches row-major; P may be 0.
        grid: rows and columns of the L patches.
        new_grid: likewise, of the result.

    Returns:
        (1, P + rows * columns, E), of the same type; differentiable.
    """
    table: Tensor = resample_abs_pos_embed(
        table_1NE,
        new_size=list(new_grid),
        old_size=list(grid),
        num_prefix_tokens=table_1NE.shape[1] - grid[0] * grid[1],
        antialias=False,
    )
    return table


@contextlib.contextmanager
def positions_for(vit: Any, grid: Grid) -> Iterator[None]:
    """Give a timm ViT for images of any size the positions of another grid, inside the block.

    timm itself would resample them with antialiasing. Inside the block the ViT has a table that
    fits, and takes that grid for its own.

    Args:
        vit: made with `dynamic_img_size`; the same after the block.
        grid: rows and columns of the patches of its next images.
    """
    own, table_1NE = vit.patch_embed.grid_size, getattr(vit, "pos_embed", None)
    if table_1NE is None or tuple(own) == grid:
        yield
        return
    # An instance's own attribute comes before a module's parameter of that name, which stays.
    vit.__dict__["pos_embed"] = resample_positions(table_1NE, own, grid)
    vit.patch_embed.grid_size = grid
    try:
        yield
    finally:
        del vit.__dict__["pos_embed"]
        vit.patch_embed.grid_size = own
