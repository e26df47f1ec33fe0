"""torch's `MultiheadAttention` by its fused attention alone.

Legend: B batch, N queries, M keys, H heads, d width of a head, W of a query, V of a key.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class FusedAttention(nn.Module):
    """The same weights under the same names, and the same result; in evaluation, without masks.

    On the CPU `MultiheadAttention` itself takes a fast path that makes all of (B, H, N, M). Off it,
    it transposes batch-first inputs, for which torch's linear copies the weights once an image
    where they need no gradient: ViT-B/16 in bfloat16 ran at a quarter of its speed.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.batch_first = attention.batch_first
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            self.register_parameter(name, getattr(attention, name))
        self.out_proj = attention.out_proj
        self.train(attention.training)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, _value: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor, None]:
        """Attend.

        Args:
            query: (B, N, W), or (N, B, W) where the batch is not first.
            key: (B, M, V), likewise; values are the same.

        Returns:
            as `query`, and None in the place of the weights.
        """
        itself = query is key
        if not self.batch_first:
            query, key = query.transpose(0, 1), key.transpose(0, 1)
        if itself and self.in_proj_weight is not None:
            x_BN3W = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            q, k, v = x_BN3W.chunk(3, dim=-1)
        else:
            q, k, v = (
                F.linear(x, *part) for x, part in zip((query, key, key), self._parts(), strict=True)
            )
        q_BHNd, k_BHMd, v_BHMd = self._split(q), self._split(k), self._split(v)
        x_BHNd = F.scaled_dot_product_attention(q_BHNd, k_BHMd, v_BHMd)
        x_BNW = self.out_proj(x_BHNd.transpose(1, 2).flatten(2))
        return x_BNW if self.batch_first else x_BNW.transpose(0, 1), None

    def alone(self, key_BMV: torch.Tensor) -> torch.Tensor:
        """Return what a query would get that attended to each key alone: (B, M, W)."""
        weight, bias = self._parts()[2]
        result_BMW: torch.Tensor = self.out_proj(F.linear(key_BMV, weight, bias))
        return result_BMW

    def _parts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weights and biases of queries, keys and values."""
        if self.in_proj_weight is None:  # where keys are of another width
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        else:
            weights = list(self.in_proj_weight.chunk(3))
        return list(zip(weights, self.in_proj_bias.chunk(3), strict=True))

    def _split(self, x_BNW: torch.Tensor) -> torch.Tensor:
        return x_BNW.reshape(*x_BNW.shape[:2], self.num_heads, -1).transpose(1, 2)
