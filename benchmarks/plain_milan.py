"""The published MILAN student, written plainly from the paper, to compare ours with.

It embeds the full image and gathers the kept patches, as MAE (arXiv 2111.06377) does and MILAN
(arXiv 2208.06049, section 3.2) after it; each decoder block joins prompts and mask tokens,
un-shuffles them into grid order, projects all of them to keys and values and takes attention with
its weights spelled out; predictions come in grid order. It is meant to be as fast as that form
allows: gathers are single calls, the encoder is timm's blocks with fused attention. It takes
weights under official names, those of `milan_pipeline.weights.official`.

Legend: B batch, L patches of the grid, K kept, M = L - K masked, N = 1 + L tokens, S = 1 + K,
E encoder width, C decoder width, D target width, H heads, d = C / H.
"""

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm  # of eps 1e-6
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

EPS = 1e-6
TOKEN_STD = 0.02


class PlainMilan(nn.Module):
    """Encoder, prompting decoder and loss of the published method.

    Args:
        image_size: (height, width) in pixels.
        patch_size: side of a patch in pixels.
        target_width: D.
        width: E, of the encoder.
        depth: encoder blocks.
        heads: of an encoder block.
        decoder_width: C.
        decoder_depth: decoder blocks.
        decoder_heads: of a decoder block.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        patch_size: int,
        target_width: int,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ) -> None:
        super().__init__()
        rows, columns = (side // patch_size for side in image_size)
        self.patch_embed = PatchEmbed(image_size, patch_size, 3, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = _fixed_positions(rows, columns, width)
        self.blocks = nn.ModuleList(
            [Block(width, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_width))
        self.decoder_pos_embed = _fixed_positions(rows, columns, decoder_width)
        self.decoder_blocks = nn.ModuleList(
            [_DecoderBlock(decoder_width, decoder_heads) for _ in range(decoder_depth)]
        )
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=EPS)
        self.decoder_pred = nn.Linear(decoder_width, target_width)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        nn.init.normal_(self.cls_token, std=TOKEN_STD)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, images_BCHW: Tensor, kept_BK: Tensor, masked_BM: Tensor) -> Tensor:
        """Predict the targets of all tokens.

        Args:
            images_BCHW: float, normalised pixels of whole views.
            kept_BK: int64 patch indices.
            masked_BM: int64, all others.

        Returns:
            (B, N, D) in grid order, CLS first; not normalised.
        """
        return self.decode(self.encode(images_BCHW, kept_BK), kept_BK, masked_BM)

    def encode(self, images_BCHW: Tensor, kept_BK: Tensor) -> Tensor:
        """Embed all patches, keep some, run the encoder: (B, S, E), CLS first."""
        x_BLE = self.patch_embed(images_BCHW) + self.pos_embed[:, 1:]
        cls_BE = (self.cls_token + self.pos_embed[:, :1]).expand(len(x_BLE), -1, -1)
        x_BSE = torch.cat([cls_BE, _take(x_BLE, kept_BK)], dim=1)
        for block in self.blocks:
            x_BSE = block(x_BSE)
        latent_BSE: Tensor = self.norm(x_BSE)
        return latent_BSE

    def decode(self, latent_BSE: Tensor, kept_BK: Tensor, masked_BM: Tensor) -> Tensor:
        """Complete the encoder's output with mask tokens and predict: (B, N, D)."""
        restore_BL = torch.cat([kept_BK, masked_BM], dim=1).argsort(dim=1)
        x_BSC = self.decoder_embed(latent_BSE)
        x_BMC = self.mask_token.expand(*masked_BM.shape, -1)
        x_BNC = _unshuffle(x_BSC, x_BMC, restore_BL) + self.decoder_pos_embed
        prompts_BSC = torch.cat([x_BNC[:, :1], _take(x_BNC[:, 1:], kept_BK)], dim=1)
        x_BMC = _take(x_BNC[:, 1:], masked_BM)
        for block in self.decoder_blocks:
            x_BMC, _ = block(x_BMC, prompts_BSC, restore_BL)
        x_BNC = self.decoder_norm(_unshuffle(prompts_BSC, x_BMC, restore_BL))
        pred_BND: Tensor = self.decoder_pred(x_BNC)
        return pred_BND


class _DecoderBlock(nn.Module):
    """Mask tokens attend to all tokens in grid order; prompts are read only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = _CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(
        self, x_BMC: Tensor, prompts_BSC: Tensor, restore_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        normed_BMC = self.norm1(x_BMC)
        context_BNC = _unshuffle(prompts_BSC, normed_BMC, restore_BL)
        mixed_BMC, weights_BHMN = self.attn(normed_BMC, context_BNC)
        x_BMC = x_BMC + mixed_BMC
        return x_BMC + self.mlp(self.norm2(x_BMC)), weights_BHMN


class _CrossAttention(nn.Module):
    """Attention that also returns its weights, and therefore forms them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BMC: Tensor, context_BNC: Tensor) -> tuple[Tensor, Tensor]:
        batch, masked, width = x_BMC.shape
        per_head = width // self.heads
        q_BHMd = self.q(x_BMC).reshape(batch, masked, self.heads, per_head).transpose(1, 2)
        kv = self.kv(context_BNC).reshape(batch, -1, 2, self.heads, per_head)
        k_BHNd, v_BHNd = kv.permute(2, 0, 3, 1, 4)
        weights_BHMN = (q_BHMd * per_head**-0.5 @ k_BHNd.transpose(-2, -1)).softmax(dim=-1)
        mixed_BMC = (weights_BHMN @ v_BHNd).transpose(1, 2).reshape(batch, masked, width)
        return self.proj(mixed_BMC), weights_BHMN


def plain_loss(pred_BND: Tensor, target_BND: Tensor) -> Tensor:
    """Return the mean over all tokens of the squared distance of the L2-normalised sides.

    (MILAN, section 3.1.) Both sides may be of any float type; the loss is float32.
    """
    pred_BND = F.normalize(pred_BND.float(), dim=-1)
    target_BND = F.normalize(target_BND.float(), dim=-1)
    return (pred_BND - target_BND).square().sum(dim=-1).mean()


def _take(x_BLC: Tensor, places_BK: Tensor) -> Tensor:
    """Gather tokens by their places in the grid."""
    return x_BLC.gather(1, places_BK[..., None].expand(-1, -1, x_BLC.shape[-1]))


def _unshuffle(seen_BSC: Tensor, x_BMC: Tensor, restore_BL: Tensor) -> Tensor:
    """Put kept (CLS before them) and masked tokens into grid order, CLS first."""
    shuffled_BLC = torch.cat([seen_BSC[:, 1:], x_BMC], dim=1)
    return torch.cat([seen_BSC[:, :1], _take(shuffled_BLC, restore_BL)], dim=1)


def _fixed_positions(rows: int, columns: int, width: int) -> nn.Parameter:
    """2-D sine-cosine positions (MAE): half the channels for the column, half for the row."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    omega = 1 / 10000 ** (torch.arange(width // 4).double() / (width / 4))
    parts = []
    for coordinate in (x, y):
        angle = coordinate.reshape(-1, 1).double() * omega
        parts += [angle.sin(), angle.cos()]
    table_LE = torch.cat(parts, dim=1).float()
    return nn.Parameter(F.pad(table_LE, (0, 0, 1, 0))[None], requires_grad=False)
