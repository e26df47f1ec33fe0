"""The fixed positions and the initialisation that encoder and decoders share."""

import torch
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError

LAYER_NORM_EPS = 1e-6
TOKEN_STD = 0.02


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


def init_linear_and_norm(module: nn.Module) -> None:
    """Give every linear layer of `module` Xavier-uniform weights and zero biases, in place.

    Layer norms become the identity (weight 1, bias 0). (MILAN's recipe, as in MAE.)
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
