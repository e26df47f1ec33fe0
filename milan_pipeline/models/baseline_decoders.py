"""MAE's decoder and a linear one; and the choice among these two and MILAN's.

Legend: B batch, K kept, M masked patches, N = 1 + L tokens, S tokens of the encoder's output, T
supervised tokens, E encoder width, C decoder width, D target width.
"""

from collections.abc import Iterator

import torch
from timm.layers.norm import LayerNorm  # of eps 1e-6
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.blocks import TOKEN_STD, init_linear_and_norm, run_blocks
from milan_pipeline.models.decoder import Decoder, EmbeddingDecoder, PromptingDecoder

DECODERS = ("prompting", "mae", "linear")


class MaeDecoder(EmbeddingDecoder):
    """Self-attention blocks over all tokens, visible and masked.

    (MAE, arXiv 2111.06377, section 3.) Attention ignores the order of its tokens, so they stay in
    student order. Arguments and errors are those of `EmbeddingDecoder`.
    """

    def make_block(self, width: int, heads: int) -> nn.Module:
        """Build a block of self-attention."""
        return Block(width, heads, qkv_bias=True, norm_layer=LayerNorm)

    def forward(
        self,
        latent_BSE: Tensor,
        kept_BK: Tensor,
        masked_BM: Tensor,
        wanted: slice,
        *,
        checkpointed: bool = False,
    ) -> Tensor:
        """Predict; see `Decoder.forward`."""
        x_BNC = torch.cat([self.embedded(latent_BSE, kept_BK), self.masks(masked_BM)], dim=1)
        x_BNC = x_BNC.to(latent_BSE.dtype)
        x_BNC = run_blocks(self.blocks, x_BNC, checkpointed=checkpointed)
        return self.head(x_BNC[:, wanted])

    def unused(self, supervise: str) -> Iterator[nn.Parameter]:
        """Yield nothing: visible tokens look at mask tokens too."""
        del supervise
        yield from ()


class LinearDecoder(Decoder):
    """A linear layer after the encoder, through which mask tokens pass with the visible ones.

    (SimMIM, arXiv 2111.09886, section 3; MaskFeat, arXiv 2112.09133; EVA, arXiv 2211.07636.) Where
    visible tokens alone are supervised, the encoder sees no mask token (MaskAlign, arXiv
    2211.08887).

    Args:
        encoder_width: E, channels of the encoder's output.
        grid: rows and columns of patches.
        target_width: D, channels of a target.
    """

    masks_enter_encoder = True

    def __init__(self, encoder_width: int, grid: tuple[int, int], target_width: int) -> None:
        super().__init__(encoder_width, grid)
        self.mask_token = nn.Parameter(torch.empty(1, 1, encoder_width))
        self.pred = nn.Linear(encoder_width, target_width)
        init_linear_and_norm(self)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(
        self,
        latent_BSE: Tensor,
        kept_BK: Tensor,
        masked_BM: Tensor,
        wanted: slice,
        *,
        checkpointed: bool = False,
    ) -> Tensor:
        """Predict; see `Decoder.forward`. `latent_BSE` holds every wanted token."""
        del kept_BK, masked_BM, checkpointed
        pred_BTD: Tensor = self.pred(latent_BSE[:, wanted])
        return pred_BTD

    def unused(self, supervise: str) -> Iterator[nn.Parameter]:
        """Yield the mask token where no mask token enters the encoder."""
        if supervise == "visible":
            yield self.mask_token


def make_decoder(
    name: str,
    encoder_width: int,
    grid: tuple[int, int],
    target_width: int,
    *,
    width: int,
    depth: int,
    heads: int,
) -> Decoder:
    """Build the decoder of a name, its weights drawn from torch's global random state.

    Args:
        name: "prompting" (MILAN), "mae" or "linear".
        encoder_width: E.
        grid: rows and columns of patches.
        target_width: D.
        width: C, which a linear head does not have, nor the next two.
        depth: blocks.
        heads: attention heads of a block.

    Raises:
        ConfigError: there is no such decoder, or its sizes do not fit.
    """
    if name not in DECODERS:
        raise ConfigError(f"--decoder {name!r} is unknown; choose one of {', '.join(DECODERS)}")
    if name == "linear":
        return LinearDecoder(encoder_width, grid, target_width)
    kind = PromptingDecoder if name == "prompting" else MaeDecoder
    return kind(encoder_width, grid, target_width, width=width, depth=depth, heads=heads)
