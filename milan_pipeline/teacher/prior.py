"""The mask prior: how much each patch matters, by the attention of the tower.

The attention modules do not return their weights, so the weights are computed here, and only for
the queries that are needed.

Legend: B batch, N tokens or keys, L patches row-major (always the last L tokens), H heads, Q needed
queries, d width of a head, W width of a token.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.tower import Tower


def settle_prior(asked: str, tower: Tower, name: str) -> str:
    """Return which prior a tower gives: "cls", "pool", "rollout" or "uniform".

    Args:
        asked: `TeacherSpec.prior`; "auto" is the attention that the tower pools by. A tower that
            averages its patches and is of no CLIP has that of its CLS token, if there is one; the
            CLS token of a CLIP that averages was never trained.
        tower: the tower that must give the prior.
        name: name of the teacher, for errors.

    Raises:
        ConfigError: the tower cannot give this prior.
    """
    attends = ", rollout" if tower.attentions else ""
    can = {
        "cls": tower.has_cls and bool(tower.attentions),
        "pool": tower.pool_attention is not None,
        "rollout": bool(tower.attentions),
        "uniform": True,
    }
    own: str = tower.pooling
    if own == "average" and can["cls"] and "projected" not in tower.widths:
        own = "cls"
    if asked == "auto" and not can.get(own):
        raise ConfigError(
            f"--teacher {name!r} pools by averaging, so no attention of its own says which patches "
            f"matter; choose --prior {'rollout or --prior ' if attends else ''}uniform"
        )
    prior = own if asked == "auto" else asked
    if not can[prior]:
        lacks = {"cls": "CLS token", "pool": "attention pooling", "rollout": "global attention"}
        works = ", ".join(kind for kind, works in can.items() if works)
        raise ConfigError(
            f"--prior {prior} needs a tower with {lacks[prior]}, which --teacher {name!r} lacks; "
            f"choose one of {works}"
        )
    return prior


class PriorReader:
    """Reads the prior while the tower computes its features.

    "cls": the CLS row of the last block's attention after softmax, mean of the heads, without the
    columns of CLS and other prefix tokens (MILAN, arXiv 2208.06049, section 3.3). It sums to less
    than 1.
    "pool": the same for the query that pools. It sums to 1 if that attends to patches only.
    "rollout": attention rollout (arXiv 2005.00928), the product over blocks of (A + I) / 2, where A
    is the mean of the heads: its CLS row without prefix columns or, without CLS, the mean row,
    which sums to 1.
    "uniform": 1 / L.
    """

    def __init__(self, tower: Tower, prior: str) -> None:
        self.prior = prior
        self._tower = tower
        self._patches = tower.grid[0] * tower.grid[1]
        self._rows_BQN: torch.Tensor | None = None

    @property
    def watches(self) -> list[torch.nn.Module]:
        """The modules whose attention is read."""
        if self.prior == "rollout":
            return self._tower.attentions
        if self.prior == "pool" and self._tower.pool_attention is not None:
            return [self._tower.pool_attention]
        return self._tower.attentions[-1:] if self.prior == "cls" else []

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read the tower's attention while it computes within this context."""
        self._rows_BQN = None
        roll = self.prior == "rollout"
        with contextlib.ExitStack() as stack:
            for attention in self.watches:
                stack.enter_context(watched(attention, self._keep, first=not roll))
            yield

    def read(self, batch: int, device: torch.device) -> torch.Tensor:
        """Return the prior of the last images that the tower computed: (B, L) float32, positive.

        Raises:
            ConfigError: the tower's attention is computed in a way that cannot be read.
        """
        if self.prior == "uniform":
            return torch.full((batch, self._patches), 1 / self._patches, device=device)
        if self._rows_BQN is None:
            raise ConfigError(
                f"--prior {self.prior} cannot be read from this teacher's attention; choose "
                "--prior uniform"
            )
        rows_BQN, self._rows_BQN = self._rows_BQN, None
        if self.prior == "rollout" and not self._tower.has_cls:
            return rows_BQN.mean(dim=1)[:, -self._patches :]
        # Cloned, since a view would keep the rows of all tokens in memory.
        return rows_BQN[:, 0, -self._patches :].clone()

    def _keep(self, weights_BQN: torch.Tensor) -> None:
        if self.prior != "rollout":
            self._rows_BQN = weights_BQN
            return
        eye_NN = torch.eye(weights_BQN.shape[-1], device=weights_BQN.device)
        mixed_BNN = (weights_BQN + eye_NN) / 2
        mixed_BNN = mixed_BNN / mixed_BNN.sum(dim=-1, keepdim=True)
        self._rows_BQN = mixed_BNN if self._rows_BQN is None else mixed_BNN @ self._rows_BQN


Keep = Callable[[torch.Tensor], None]


@contextlib.contextmanager
def watched(attention: nn.Module, keep: Keep, *, first: bool) -> Iterator[None]:
    """Pass a module's attention weights to `keep` whenever the module is called.

    Args:
        attention: a module that calls torch's `scaled_dot_product_attention` or `softmax` itself,
            as `FusedAttention` and timm's modules do, or open_clip's `AttentionPool2d`.
        keep: called with (B, Q, N) float32, the mean of the heads.
        first: whether only the first query is needed (Q = 1) or all of them.
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
        del attention.forward  # the method of the class is found again


class _Reading(TorchFunctionMode):
    """Computes attention weights from the queries and keys that torch's attention gets."""

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
        elif func is torch.Tensor.softmax:  # if timm is told not to use fused attention
            self._keep(result[:, :, : 1 if self._first else None].float().mean(dim=1))
        return result


def _weights(
    q_BHQd: torch.Tensor,
    k_BHNd: torch.Tensor,
    scale: float | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return softmax(q k^T scale + mask), mean of the heads: (B, Q, N) float32."""
    scale = q_BHQd.shape[-1] ** -0.5 if scale is None else scale
    logits_BHQN = q_BHQd.float() @ k_BHNd.float().transpose(-2, -1) * scale
    if mask is not None and mask.dtype == torch.bool:
        logits_BHQN = logits_BHQN.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        logits_BHQN = logits_BHQN + mask.float()
    return logits_BHQN.softmax(dim=-1).mean(dim=1)


def _mean_query_row(pool: AttentionPool2d, map_BWhw: torch.Tensor) -> torch.Tensor:
    """Return the only row that CLIP's ResNet pool uses; its query is the mean token."""
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
