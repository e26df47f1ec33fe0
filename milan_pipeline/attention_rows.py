"""Attention weights out of modules that do not return them, for the queries that are wanted only.

Legend: B batch, H heads, Q queries that are wanted, N keys, d width of a head, W of a token.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Keep = Callable[[torch.Tensor], None]


@contextlib.contextmanager
def watched(attention: nn.Module, keep: Keep, *, first: bool) -> Iterator[None]:
    """Have a module's attention weights handed to `keep` whenever it is called.

    Args:
        attention: a module that calls torch's `scaled_dot_product_attention` or `softmax` by
            itself, as `FusedAttention` and timm's do, or open_clip's `AttentionPool2d`.
        keep: is given (B, Q, N) float32, the mean over the heads.
        first: whether only the first query is wanted (Q = 1); otherwise all are.
    """
    plain = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if isinstance(attention, AttentionPool2d):
            keep(_mean_query_row(attention, *args))
            return plain(*args, **kwargs)
        with _Reading(keep, first=first):
            return plain(*args, **kwargs)

    attention.forward = forward
    try:
        yield
    finally:
        del attention.forward  # the class's own shows through again


class _Reading(TorchFunctionMode):
    """Read the weights off the queries and keys that torch's fused attention is called with."""

    def __init__(self, keep: Keep, *, first: bool) -> None:
        super().__init__()
        self._keep, self._first = keep, first

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            q_BHNd, k_BHNd = args[:2]
            mask = kwargs.get("attn_mask")
            if self._first:
                q_BHNd = q_BHNd[:, :, :1]
                mask = None if mask is None else mask[..., :1, :]
            self._keep(_weights(q_BHNd, k_BHNd, kwargs.get("scale"), mask))
        elif func is torch.Tensor.softmax:  # where timm is told not to fuse
            self._keep(result[:, :, : 1 if self._first else None].float().mean(dim=1))
        return result


def _weights(
    q_BHQd: torch.Tensor,
    k_BHNd: torch.Tensor,
    scale: float | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return softmax(q k^T scale + mask), head mean: (B, Q, N) float32."""
    scale = q_BHQd.shape[-1] ** -0.5 if scale is None else scale
    logits_BHQN = q_BHQd.float() @ k_BHNd.float().transpose(-2, -1) * scale
    if mask is not None and mask.dtype == torch.bool:
        logits_BHQN = logits_BHQN.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        logits_BHQN = logits_BHQN + mask.float()
    return logits_BHQN.softmax(dim=-1).mean(dim=1)


def _mean_query_row(pool: AttentionPool2d, map_BWhw: torch.Tensor) -> torch.Tensor:
    """Return the one row that is used of CLIP's ResNet pool, whose query is the mean token."""
    tokens_BNW = map_BWhw.flatten(2).transpose(1, 2)
    tokens_BNW = torch.cat([tokens_BNW.mean(dim=1, keepdim=True), tokens_BNW], dim=1)
    tokens_BNW = tokens_BNW + pool.positional_embedding.to(tokens_BNW.dtype)
    return _weights(
        _split(pool.q_proj(tokens_BNW[:, :1]), pool.num_heads),
        _split(pool.k_proj(tokens_BNW), pool.num_heads),
    )


def _split(x_BNW: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, W) -> (B, H, N, d)."""
    return x_BNW.reshape(*x_BNW.shape[:2], heads, -1).transpose(1, 2)
