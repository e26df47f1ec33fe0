"""The prompting decoder of MILAN, the fixed positions and the initialisation both halves share.

Legend: B batch, L patches of the grid, K kept, M = L - K masked, N = 1 + L tokens, E encoder
width, C decoder width, D target width, H heads, d = C / H, S = 1 + K prompts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError

LAYER_NORM_EPS = 1e-6
MLP_RATIO = 4
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


class _CrossAttention(nn.Module):
    """Multi-head attention whose queries come from one sequence, keys and values from another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, query_BMC: Tensor, context_BNC: Tensor) -> Tensor:
        q_BHMd = self._split_heads(self.q(query_BMC))
        k_BHNd, v_BHNd = map(self._split_heads, self.kv(context_BNC).chunk(2, dim=-1))
        mixed_BHMd = F.scaled_dot_product_attention(q_BHMd, k_BHNd, v_BHNd)
        mixed_BMC: Tensor = self.proj(mixed_BHMd.transpose(1, 2).flatten(2))
        return mixed_BMC

    def _split_heads(self, x_BNC: Tensor) -> Tensor:
        batch, tokens, _ = x_BNC.shape
        return x_BNC.reshape(batch, tokens, self.heads, -1).transpose(1, 2)


class _Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x_BMC: Tensor) -> Tensor:
        mixed_BMC: Tensor = self.fc2(F.gelu(self.fc1(x_BMC)))
        return mixed_BMC


class _PromptedBlock(nn.Module):
    """A transformer block that updates the mask tokens and only reads the prompts."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = _CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = _Mlp(width)

    def forward(self, x_BMC: Tensor, prompts_BSC: Tensor) -> Tensor:
        normed_BMC = self.norm1(x_BMC)
        # The prompts are the encoder's normed output, embedded: they are not normed again.
        x_BMC = x_BMC + self.attn(normed_BMC, torch.cat([prompts_BSC, normed_BMC], dim=1))
        mixed_BMC: Tensor = self.mlp(self.norm2(x_BMC))
        return x_BMC + mixed_BMC


class PromptingDecoder(nn.Module):
    """Predict every token's target; only mask tokens are updated, prompted by the visible ones.

    (MILAN, arXiv 2208.06049, section 3.2, "prompting decoder".) Attention ignores the order of its
    tokens, so prompts and mask tokens stay apart until one scatter puts the output in grid order.

    Args:
        encoder_width: E, channels of the encoder's output.
        grid: rows and columns of patches.
        target_width: D, channels of a target.
        width: C, channels inside the decoder.
        depth: blocks.
        heads: attention heads of a block.

    Raises:
        ConfigError: `width` is no multiple of 4 or of `heads`.
    """

    def __init__(
        self,
        encoder_width: int,
        grid: tuple[int, int],
        target_width: int,
        *,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"a decoder width of {width} does not divide into {heads} heads; "
                "choose a width that is a multiple of the heads"
            )
        self.grid = grid
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_positions(grid, width), requires_grad=False)
        self.blocks = nn.ModuleList([_PromptedBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.pred = nn.Linear(width, target_width)
        init_linear_and_norm(self)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, latent_BSE: Tensor, kept_BK: Tensor, masked_BM: Tensor) -> Tensor:
        """Predict the targets of all tokens from the encoder's output.

        Args:
            latent_BSE: float, the encoder's normed output, CLS first, then the kept patches.
            kept_BK: int64, their patch indices, in the same order.
            masked_BM: int64, all other patch indices, in any order.

        Returns:
            float (B, N, D), CLS first, then the patches row-major; not normalised.
        """
        # Row 0 of the position table is CLS, hence patch i is row i + 1.
        seen_BS = F.pad(kept_BK + 1, (1, 0))
        hidden_BM = masked_BM + 1
        prompts_BSC = self.embed(latent_BSE) + self.pos_embed[0, seen_BS]
        x_BMC = self.mask_token + self.pos_embed[0, hidden_BM]
        for block in self.blocks:
            x_BMC = block(x_BMC, prompts_BSC)
        tokens_BNC = torch.cat([prompts_BSC, x_BMC], dim=1)
        places_BN1 = torch.cat([seen_BS, hidden_BM], dim=1)[..., None]
        ordered_BNC = torch.empty_like(tokens_BNC).scatter(
            1, places_BN1.expand_as(tokens_BNC), tokens_BNC
        )
        pred_BND: Tensor = self.pred(self.norm(ordered_BNC))
        return pred_BND
