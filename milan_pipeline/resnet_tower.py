"""CLIP's own ResNets, such as RN50, which pool their feature map by attention.

Legend: B batch, h, w the map, L = h * w positions row-major, N = 1 + L, C channels, D target width.
"""

from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import nn

from milan_pipeline.tower import Pooling


class ResNetTower:
    """A `ModifiedResNet`; see `tower.Tower`.

    The projection is inside the pool. A position goes through it as if it alone were looked at, by
    value and output projection, as in MaskCLIP (arXiv 2112.01071).
    """

    blocks: list[nn.Module] = []  # noqa: RUF012 - there are none
    attentions: list[nn.Module] = []  # noqa: RUF012
    pooling: Pooling = "pool"
    has_cls = False
    heads: int | None
    activation: str | None = None

    def __init__(self, visual: ModifiedResNet) -> None:
        self._visual = visual
        pool: Any = visual.attnpool
        self._pool = pool
        self.pool_attention: nn.Module | None = pool
        self.image_size = int(visual.image_size)
        self.stride = 32
        self.grid = (self.image_size // self.stride,) * 2
        self.widths = {"projected": int(pool.c_proj.out_features)}
        self.heads = int(pool.num_heads)

    def features(self, pixels_BCHW: torch.Tensor, *, layers: int, space: str) -> torch.Tensor:  # noqa: ARG002
        """Compute the features of images and of their patches; there is one layer and space."""
        seen = self._visual.forward_intermediates(pixels_BCHW, indices=1, intermediates_only=True)
        map_BChw = seen["image_intermediates"][-1]
        place_LC = self._pool.positional_embedding[1:].to(map_BChw.dtype)
        tokens_BLC = map_BChw.flatten(2).transpose(1, 2) + place_LC
        each_BLD = self._pool.c_proj(self._pool.v_proj(tokens_BLC))
        return torch.cat([self._pool(map_BChw).unsqueeze(1), each_BLD], dim=1)
