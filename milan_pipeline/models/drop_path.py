"""Stochastic depth with one graph for all blocks.

Blocks differ in their rate. timm keeps it as a Python number, which torch compiles into the graph:
each block would be compiled anew, and from the ninth on not at all (`recompile_limit`). Here it is
a tensor, which a graph takes as an input.

Legend: B batch.
"""

from collections.abc import Callable
from typing import Self

import torch
from timm.layers.drop import DropPath as TimmDropPath
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leave a sample's residual branch out at random while training (arXiv 1603.09382).

    Branches that are kept are divided by the share that is kept, as timm does by default.

    Args:
        rate: share that is left out, below 1; the attribute `drop_prob`, as in timm.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.drop_prob = rate
        # No buffer: DDP would send it to all processes in each step.
        self._kept = torch.tensor(1.0 - rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, ...) with some samples' values 0; in evaluation as they are."""
        if not self.training:
            return x
        draws_B = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device)
        return x * ((draws_B < self._kept) / self._kept).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = fn(self._kept)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]


def share_graphs(model: nn.Module) -> None:
    """Replace timm's stochastic depth inside a model, that of rate 0 included, in place."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name.startswith("drop_path") and isinstance(child, TimmDropPath | nn.Identity)
    ]
    if any(isinstance(child, TimmDropPath) for _, _, child in found):
        for parent, name, child in found:
            setattr(parent, name, DropPath(getattr(child, "drop_prob", 0.0)))
