"""open_clip's own towers: vision transformers, CoCa's, and CLIP's ResNets such as RN50.

The transformers' attention is replaced by a faster module of the same weights.

Legend: B batch, N = 1 + L tokens or N queries, M keys, L patches or positions row-major, W width of
a token or query, V width of a key, D target width, H heads, d width of a head, h, w size of a
ResNet's map, C its channels.
"""

from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import AttentionalPooler, VisionTransformer
from torch import nn
from torch.nn import functional as F

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.tower import Pooling, mean_of


class NativeTower:
    """open_clip's `VisionTransformer` with its attention replaced; see `tower.Tower`.

    Raises:
        ConfigError: this form of it defines no feature of a single patch.
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
        found = self._visual.forward_intermediates(
            pixels_BCHW,
            indices=layers,
            output_fmt="NLC",
            output_extra_tokens=True,
            intermediates_only=True,
        )
        pairs = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
        hidden_BNW = mean_of([self._hidden(torch.cat(pair, dim=1)) for pair in pairs])
        return hidden_BNW @ self._visual.proj if space == "projected" else hidden_BNW

    def _hidden(self, tokens_BNW: torch.Tensor) -> torch.Tensor:
        """Pool, and apply the final norm to the pooled token and to every patch: (B, N, W)."""
        norm = self._visual.ln_post
        if self._visual.pool_type == "tok":
            hidden_BNW: torch.Tensor = norm(tokens_BNW)
            return hidden_BNW
        patches_BLW = norm(tokens_BNW[:, 1:])
        after = self._visual.final_ln_after_pool
        pooled_BW = norm(tokens_BNW[:, 1:].mean(dim=1)) if after else patches_BLW.mean(dim=1)
        return torch.cat([pooled_BW.unsqueeze(1), patches_BLW], dim=1)


class CocaTower(NativeTower):
    """A `VisionTransformer` that pools by attention, as CoCa's; the first query is the image's.

    The projection starts inside the pool. A patch goes through it as if it were the only key:
    value, output projection, final norm, projection.
    """

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
        ConfigError: this form of it defines no feature of a single patch.
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


class FusedAttention(nn.Module):
    """`MultiheadAttention` by torch's fused attention, in evaluation and without masks.

    It has the same weights under the same names, and the same result. On the CPU,
    `MultiheadAttention` itself takes a fast path that builds all of (B, H, N, M). Otherwise it
    transposes batch-first inputs, for which torch's linear copies the weights once for each image
    if they need no gradient: ViT-B/16 in bfloat16 ran at a quarter of its speed.
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
            query: (B, N, W), or (N, B, W) if the batch is not first.
            key: (B, M, V), or (M, B, V); values are the same as keys.

        Returns:
            A tensor of the shape of `query`, and None instead of the weights.
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
        """Return the result of a query that attends to one key alone, for each key: (B, M, W)."""
        weight, bias = self._parts()[2]
        result_BMW: torch.Tensor = self.out_proj(F.linear(key_BMV, weight, bias))
        return result_BMW

    def _parts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weights and biases of queries, keys and values."""
        if self.in_proj_weight is None:  # if keys have another width
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        else:
            weights = list(self.in_proj_weight.chunk(3))
        return list(zip(weights, self.in_proj_bias.chunk(3), strict=True))

    def _split(self, x_BNW: torch.Tensor) -> torch.Tensor:
        return x_BNW.reshape(*x_BNW.shape[:2], self.num_heads, -1).transpose(1, 2)


class ResNetTower:
    """A `ModifiedResNet`; see `tower.Tower`.

    The projection is inside the pool. A position goes through it as if it were the only key, by
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
        found = self._visual.forward_intermediates(pixels_BCHW, indices=1, intermediates_only=True)
        map_BChw = found["image_intermediates"][-1]
        place_LC = self._pool.positional_embedding[1:].to(map_BChw.dtype)
        tokens_BLC = map_BChw.flatten(2).transpose(1, 2) + place_LC
        each_BLD = self._pool.c_proj(self._pool.v_proj(tokens_BLC))
        return torch.cat([self._pool(map_BChw).unsqueeze(1), each_BLD], dim=1)
