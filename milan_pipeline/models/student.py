"""The student: a timm encoder on the visible patches, and a decoder that predicts the targets.

Tokens come in *student order*: CLS, the kept patches ascending, the masked patches ascending. The
supervised tokens are a contiguous slice of that order; tokens are never put back in grid order.

Legend: B batch, L patches of the grid, K kept, M = L - K masked, N = 1 + L tokens, S tokens of the
encoder's output, T supervised tokens, R register tokens, E encoder width, D target width, P = 3 *
p * p pixels of one patch, X any width.
"""

import torch
import torch.nn.functional as F
from timm.models import VisionTransformer
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.blocks import run_blocks
from milan_pipeline.models.decoder import Decoder
from milan_pipeline.models.residual import in_autocast_type, keep_types
from milan_pipeline.models.vit import tokens_of

SUPERVISE = ("all", "masked", "visible")


def supervised_slice(supervise: str, *, kept: int, patches: int) -> slice:
    """Return which tokens of student order are supervised.

    Args:
        supervise: "all": every token, CLS and visible ones too (MILAN, arXiv 2208.06049, section
            3.1). "masked": the masked patches alone (MAE, arXiv 2111.06377). "visible": CLS and the
            kept patches (MaskAlign, arXiv 2211.08887).
        kept: K.
        patches: L.

    Raises:
        ConfigError: there is no such choice.
    """
    if supervise not in SUPERVISE:
        raise ConfigError(
            f"--supervise {supervise!r} is unknown; choose one of {', '.join(SUPERVISE)}"
        )
    start = 1 + kept if supervise == "masked" else 0
    return slice(start, 1 + (kept if supervise == "visible" else patches))


def in_grid_order(tokens_BNX: Tensor, kept_BK: Tensor, masked_BM: Tensor) -> Tensor:
    """Put tokens in student order into grid order: CLS, then the patches row-major.

    Args:
        tokens_BNX: any dtype.
        kept_BK: int64 patch indices, in the order of their tokens.
        masked_BM: likewise.

    Returns:
        (B, N, X), same dtype.
    """
    # Row 0 is CLS, hence patch i is row i + 1.
    places_BN = F.pad(torch.cat([kept_BK, masked_BM], dim=1) + 1, (1, 0))
    return torch.empty_like(tokens_BNX).scatter(
        1, places_BN[..., None].expand_as(tokens_BNX), tokens_BNX
    )


def patchify(images_BCHW: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches, row-major; a patch is laid out as (channel, row, column).

    That layout makes a patch embedding one matrix product with `conv.weight.flatten(1)`.

    Args:
        images_BCHW: any dtype; leading dimensions are kept, so one image (C, H, W) is fine.
        patch_size: p, pixels of a patch's side.

    Returns:
        (B, L, C * p * p), same dtype.

    Raises:
        ConfigError: a side is not a multiple of `patch_size`.
    """
    *lead, channels, height, width = images_BCHW.shape
    if height % patch_size or width % patch_size:
        raise ConfigError(
            f"images of {height}x{width} pixels do not divide into patches of {patch_size} pixels; "
            "choose an image size that is a multiple of it"
        )
    rows, columns = height // patch_size, width // patch_size
    cut = images_BCHW.reshape(-1, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(*lead, rows * columns, -1)


def in_student_order(tokens_BNX: Tensor, kept_BK: Tensor, masked_BM: Tensor) -> Tensor:
    """Put tokens in grid order into student order; the reverse of `in_grid_order`."""
    places_BN = F.pad(torch.cat([kept_BK, masked_BM], dim=1) + 1, (1, 0))
    return tokens_BNX.gather(1, places_BN[..., None].expand_as(tokens_BNX))


class Student(nn.Module):
    """Encoder and decoder as one model.

    Parameters that no supervised token depends on are not trained.

    Args:
        encoder: from `build_encoder`.
        decoder: for the same grid and encoder width.
        supervise: which tokens are predicted; see `supervised_slice`.
        checkpoint_blocks: whether blocks are computed again for the gradient rather than kept; an
            attribute that may be set at any time.

    Attributes:
        autocast_residual: whether tokens between blocks are in the type that autocast computes in,
            rather than float32; see `narrow_residual`.

    Raises:
        ConfigError: the decoder was made for another grid or width.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        decoder: Decoder,
        supervise: str = "all",
        *,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        fits = (tuple(encoder.patch_embed.grid_size), encoder.embed_dim)
        made_for = (tuple(decoder.grid), decoder.encoder_width)
        if fits != made_for:
            raise ConfigError(
                f"the decoder was made for grid and encoder width {made_for}, the encoder has "
                f"{fits}; build the decoder with the encoder's"
            )
        supervised_slice(supervise, kept=1, patches=2)  # refuses an unknown word
        self.encoder = encoder
        self.decoder = decoder
        self.supervise = supervise
        self.checkpoint_blocks = checkpoint_blocks
        self.autocast_residual = False
        for parameter in decoder.unused(supervise):
            parameter.requires_grad = False

    def narrow_residual(self) -> None:
        """Keep tokens in the type that autocast computes in, from the patch embedding on.

        Norms compute in float32. Without autocast, all is in float32 as before.
        """
        keep_types(self)
        self.autocast_residual = True

    def encode(
        self,
        patches_BKP: Tensor,
        kept_BK: Tensor,
        masked_BM: Tensor | None = None,
        mask_token_11E: Tensor | None = None,
    ) -> Tensor:
        """Run the encoder on the kept patches, as timm would if there were no others.

        (MILAN, arXiv 2208.06049, section 3; MAE, arXiv 2111.06377, section 3.) Register tokens take
        part and are left out of what is returned.

        Args:
            patches_BKP: float, normalised pixels as `patchify` lays them out.
            kept_BK: int64, the patches' indices in the grid.
            masked_BM: int64, indices of patches in whose place a mask token enters, after the kept.
            mask_token_11E: that token, needed with `masked_BM`.

        Returns:
            float (B, S, E) after the final norm: CLS, the kept patches, then the masked if given.
        """
        vit = self.encoder
        projection = vit.patch_embed.proj
        embedded_BKE = F.linear(patches_BKP, projection.weight.flatten(1), projection.bias)
        prefix_1RE, positions_LE = self._prefix()
        parts = [
            prefix_1RE.expand(len(patches_BKP), -1, -1),
            vit.patch_embed.norm(embedded_BKE) + positions_LE[kept_BK],
        ]
        if masked_BM is not None and mask_token_11E is not None:
            parts.append(mask_token_11E + positions_LE[masked_BM])
        x_BSE = torch.cat(parts, dim=1)
        if self.autocast_residual:
            x_BSE = in_autocast_type(x_BSE)
        x_BSE = vit.norm_pre(vit.pos_drop(x_BSE))
        x_BSE = run_blocks(vit.blocks, x_BSE, checkpointed=self.checkpoint_blocks)
        if vit.num_reg_tokens:
            x_BSE = torch.cat([x_BSE[:, :1], x_BSE[:, vit.num_prefix_tokens :]], dim=1)
        latent_BSE: Tensor = vit.norm(x_BSE)
        return latent_BSE.to(x_BSE.dtype)

    def _prefix(self) -> tuple[Tensor, Tensor]:
        """Return CLS and register tokens (1, 1 + R, E), and the patches' positions (L, E)."""
        vit = self.encoder
        cls_token, positions_1NE = tokens_of(vit)
        prefix_1RE: Tensor = cls_token
        if vit.reg_token is not None:
            prefix_1RE = torch.cat([cls_token, vit.reg_token], dim=1)
        if vit.no_embed_class:
            return prefix_1RE, positions_1NE[0]
        prefix = vit.num_prefix_tokens
        return prefix_1RE + positions_1NE[:, :prefix], positions_1NE[0, prefix:]

    def forward(self, patches_BKP: Tensor, kept_BK: Tensor, masked_BM: Tensor) -> Tensor:
        """Predict the targets of the supervised tokens from the kept patches.

        Args:
            patches_BKP: float, normalised pixels of the kept patches, as `patchify` lays them out.
            kept_BK: int64, their indices in the grid.
            masked_BM: int64, all other indices.

        Returns:
            float (B, T, D), the supervised slice of student order (the orders in which `kept_BK`
            and `masked_BM` come); not normalised.
        """
        kept = kept_BK.shape[1]
        wanted = supervised_slice(self.supervise, kept=kept, patches=kept + masked_BM.shape[1])
        decoder = self.decoder
        if decoder.masks_enter_encoder and wanted.stop > 1 + kept:
            latent_BSE = self.encode(patches_BKP, kept_BK, masked_BM, decoder.mask_token)
        else:
            latent_BSE = self.encode(patches_BKP, kept_BK)
        pred_BTD: Tensor = decoder(
            latent_BSE, kept_BK, masked_BM, wanted, checkpointed=self.checkpoint_blocks
        )
        return pred_BTD
