"""What a decoder is, and the prompting decoder of MILAN; `baseline_decoders` has the others.

Legend: B batch, L patches of the grid, K kept, M = L - K masked, N = 1 + L tokens, T supervised
tokens, E encoder width, C decoder width, D target width, H heads, d = C / H, S = 1 + K prompts.
"""

import abc
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.blocks import LAYER_NORM_EPS, TOKEN_STD, init_linear_and_norm, run_blocks
from milan_pipeline.models.kernels import attention
from milan_pipeline.models.positions import sincos_positions

MLP_RATIO = 4


class Decoder(nn.Module, abc.ABC):
    """What turns the encoder's output into predictions of the targets.

    Attributes:
        grid: rows and columns of patches.
        encoder_width: E.
        mask_token: (1, 1, C), which stands for a masked patch.
        masks_enter_encoder: whether mask tokens already pass through the encoder (C = E then).
    """

    mask_token: nn.Parameter
    masks_enter_encoder = False

    def __init__(self, encoder_width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.encoder_width = encoder_width

    @abc.abstractmethod
    def forward(
        self,
        latent_BSE: Tensor,
        kept_BK: Tensor,
        masked_BM: Tensor,
        wanted: slice,
        *,
        checkpointed: bool = False,
    ) -> Tensor:
        """Predict the targets of some tokens.

        Args:
            latent_BSE: float, the encoder's normed output in student order.
            kept_BK: int64, patch indices of the kept, in the order of their tokens.
            masked_BM: int64, all other patch indices.
            wanted: which tokens of student order (CLS, kept, masked); nothing else is computed
                that they do not need.
            checkpointed: compute blocks again for the gradient rather than keep what is in them.

        Returns:
            float (B, T, D), not normalised.
        """

    @abc.abstractmethod
    def unused(self, supervise: str) -> Iterator[nn.Parameter]:
        """Yield the parameters that no prediction depends on where only these are supervised."""


class EmbeddingDecoder(Decoder):
    """A decoder with a width of its own: embedding, positions, blocks of some kind, head.

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
        super().__init__(encoder_width, grid)
        if width % heads:
            raise ConfigError(
                f"a decoder width of {width} does not divide into {heads} heads; "
                "choose a width that is a multiple of the heads"
            )
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_positions(grid, width), requires_grad=False)
        self.blocks = nn.ModuleList()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.pred = nn.Linear(width, target_width)
        self.blocks.extend(self.make_block(width, heads) for _ in range(depth))
        init_linear_and_norm(self)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    @abc.abstractmethod
    def make_block(self, width: int, heads: int) -> nn.Module:
        """Build one block."""

    def embedded(self, latent_BSE: Tensor, kept_BK: Tensor) -> Tensor:
        """Embed the encoder's tokens and add their positions: (B, S, C)."""
        # Row 0 of the position table is CLS, hence patch i is row i + 1.
        embedded_BSC: Tensor = self.embed(latent_BSE)
        return embedded_BSC + self.pos_embed[0, F.pad(kept_BK + 1, (1, 0))]

    def masks(self, masked_BM: Tensor) -> Tensor:
        """Return the mask tokens at their positions: (B, M, C)."""
        return self.mask_token + self.pos_embed[0, masked_BM + 1]

    def head(self, tokens_BTC: Tensor) -> Tensor:
        """Predict targets from tokens: (B, T, D)."""
        pred_BTD: Tensor = self.pred(self.norm(tokens_BTC))
        return pred_BTD


class PromptingDecoder(EmbeddingDecoder):
    """Predict targets; only mask tokens are updated, prompted by the visible ones.

    (MILAN, arXiv 2208.06049, section 3.2, "prompting decoder".) Attention ignores the order of its
    tokens, so prompts and mask tokens stay apart and come out in student order. Arguments
    and errors are those of `EmbeddingDecoder`.
    """

    def make_block(self, width: int, heads: int) -> nn.Module:
        """Build a block that reads the prompts."""
        return _PromptedBlock(width, heads)

    def forward(
        self,
        latent_BSE: Tensor,
        kept_BK: Tensor,
        masked_BM: Tensor,
        wanted: slice,
        *,
        checkpointed: bool = False,
    ) -> Tensor:
        """Predict; see `Decoder.forward`. Prompts alone need no block."""
        prompts_BSC = self.embedded(latent_BSE, kept_BK).to(latent_BSE.dtype)
        prompts = prompts_BSC.shape[1]
        if wanted.stop <= prompts:
            return self.head(prompts_BSC[:, wanted])
        masks_BMC = self.masks(masked_BM).to(latent_BSE.dtype)
        x_BMC = run_blocks(self.blocks, masks_BMC, prompts_BSC, checkpointed=checkpointed)
        if wanted.start >= prompts:
            return self.head(x_BMC[:, wanted.start - prompts : wanted.stop - prompts])
        return self.head(torch.cat([prompts_BSC, x_BMC], dim=1)[:, wanted])

    def unused(self, supervise: str) -> Iterator[nn.Parameter]:
        """Yield blocks and mask token where only visible tokens are supervised."""
        if supervise == "visible":
            yield self.mask_token
            yield from self.blocks.parameters()


class _PromptedBlock(nn.Module):
    """A transformer block that updates the mask tokens and only reads the prompts."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = _PromptedAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = _Mlp(width)

    def forward(self, x_BMC: Tensor, prompts_BSC: Tensor) -> Tensor:
        # The prompts are the encoder's normed output, embedded: they are not normed again.
        x_BMC = x_BMC + self.attn(self.norm1(x_BMC), prompts_BSC)
        mixed_BMC: Tensor = self.mlp(self.norm2(x_BMC))
        return x_BMC + mixed_BMC


class _PromptedAttention(nn.Module):
    """Multi-head attention of mask tokens over the prompts and themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BMC: Tensor, prompts_BSC: Tensor) -> Tensor:
        q_BHMd = self._split_heads(self.q(x_BMC))
        k_BHNd, v_BHNd = map(self._split_heads, self._keys_and_values(x_BMC, prompts_BSC))
        mixed_BHMd = attention(q_BHMd, k_BHNd, v_BHNd)
        mixed_BMC: Tensor = self.proj(mixed_BHMd.transpose(1, 2).flatten(2))
        return mixed_BMC

    def _keys_and_values(self, x_BMC: Tensor, prompts_BSC: Tensor) -> tuple[Tensor, ...]:
        """Project prompts and mask tokens: two (B, N, C).

        Each block projects the prompts by weights of its own, so there is nothing to share but
        the call. One product for all blocks before the first measured the same (fp32 and bf16,
        batch 8), and would take weights out of blocks that FSDP shards one by one.
        """
        both: Tensor = self.kv(torch.cat([prompts_BSC, x_BMC], dim=1))
        return both.chunk(2, dim=-1)

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
