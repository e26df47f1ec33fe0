"""open_clip's own `VisionTransformer`, pooled by its CLS token or by the mean; and CoCa's.

Legend: B batch, N = 1 + L tokens, CLS first, L patches row-major, W tower width, D target width.
"""

import torch
from open_clip.transformer import AttentionalPooler, VisionTransformer
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.fused_attention import FusedAttention
from milan_pipeline.tower import Pooling, mean_of


class NativeTower:
    """A `VisionTransformer` as open_clip builds it, its attention exchanged; see `tower.Tower`.

    Raises:
        ConfigError: it is of a form for which no feature of a single patch is defined.
    """

    has_cls = True
    pooling: Pooling
    heads: int | None
    activation: str | None
    pool_attention: nn.Module | None = None

    def __init__(self, visual: VisionTransformer, name: str) -> None:
        _require_usable(visual, name)
        self._visual = visual
        self.image_size = int(visual.image_size[0])
        self.stride = int(visual.patch_size[0])
        self.grid = (int(visual.grid_size[0]), int(visual.grid_size[1]))
        self.widths = dict(
            zip(("hidden", "projected"), map(int, visual.proj.shape), strict=True),
        )
        self.pooling = "cls" if visual.pool_type == "tok" else "average"
        self.blocks = list(visual.transformer.resblocks)
        for block in self.blocks:
            if isinstance(block.attn, nn.MultiheadAttention):
                block.attn = FusedAttention(block.attn)
        self.attentions = [block.attn for block in self.blocks]
        self.heads = int(self.blocks[-1].attn.num_heads)
        self.activation = type(self.blocks[-1].mlp.gelu).__name__

    def features(self, pixels_BCHW: torch.Tensor, *, layers: int, space: str) -> torch.Tensor:
        """Compute the features of images and of their patches; see `tower.Tower.features`."""
        seen = self._visual.forward_intermediates(
            pixels_BCHW,
            indices=layers,
            output_fmt="NLC",
            output_extra_tokens=True,
            intermediates_only=True,
        )
        pairs = zip(seen["image_intermediates_prefix"], seen["image_intermediates"], strict=True)
        hidden_BNW = mean_of([self._hidden(torch.cat(pair, dim=1)) for pair in pairs])
        return hidden_BNW @ self._visual.proj if space == "projected" else hidden_BNW

    def _hidden(self, tokens_BNW: torch.Tensor) -> torch.Tensor:
        """Pool, and apply the final norm to the pooled and to every patch: (B, N, W)."""
        norm = self._visual.ln_post
        if self._visual.pool_type == "tok":
            hidden_BNW: torch.Tensor = norm(tokens_BNW)
            return hidden_BNW
        patches_BLW = norm(tokens_BNW[:, 1:])
        after = self._visual.final_ln_after_pool
        pooled_BW = norm(tokens_BNW[:, 1:].mean(dim=1)) if after else patches_BLW.mean(dim=1)
        return torch.cat([pooled_BW.unsqueeze(1), patches_BLW], dim=1)


class CocaTower(NativeTower):
    """A `VisionTransformer` that pools by attention, as CoCa's: its first query is the image's.

    The projection starts inside the pool. A patch goes through it as if it alone were looked at:
    value, output projection, final norm, projection.
    """

    pooling = "pool"

    def __init__(self, visual: VisionTransformer, name: str) -> None:
        super().__init__(visual, name)
        self.pooling = "pool"
        self._pool: AttentionalPooler = visual.attn_pool
        if isinstance(self._pool.attn, nn.MultiheadAttention):
            self._pool.attn = FusedAttention(self._pool.attn)
        self.pool_attention = self._pool.attn

    def _hidden(self, tokens_BNW: torch.Tensor) -> torch.Tensor:
        norm = self._visual.ln_post
        pooled_B1D = norm(self._pool(tokens_BNW)[:, :1])
        each_BLD = norm(self._pool.attn.alone(self._pool.ln_k(tokens_BNW[:, 1:])))
        return torch.cat([pooled_B1D, each_BLD], dim=1)


def native_tower(visual: VisionTransformer, name: str) -> NativeTower:
    """Return the tower of open_clip's own vision transformer.

    Raises:
        ConfigError: it is of a form for which no feature of a single patch is defined.
    """
    return (NativeTower if visual.attn_pool is None else CocaTower)(visual, name)


def _require_usable(visual: VisionTransformer, name: str) -> None:
    attention = visual.transformer.resblocks[-1].attn
    problem = ""
    if visual.proj is None:
        problem = "has no projection"
    elif visual.pool_type == "none" or getattr(visual, "attn_pool_contrastive", None) is not None:
        problem = "returns tokens that are not pooled into one"
    elif visual.attn_pool is not None and visual.pool_type != "tok":
        problem = "pools by the mean of several attention queries"
    elif getattr(attention, "scaled_cosine", False):
        problem = "has scaled cosine attention, which open_clip cannot run"
    if problem:
        raise ConfigError(
            f"--teacher {name!r} {problem}; choose another, such as ViT-B-16 or coca_ViT-B-32"
        )
