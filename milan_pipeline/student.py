"""The student: a timm encoder on the visible patches, the prompting decoder, and the loss.

Legend: B batch, L patches of the grid, K kept, M = L - K masked, N = 1 + L tokens, S = 1 + K
encoder tokens, E encoder width, D target width, P = 3 * p * p pixels of one patch.
"""

from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models import VisionTransformer
from torch import Tensor, nn

from milan_pipeline.decoder import (
    TOKEN_STD,
    PromptingDecoder,
    init_linear_and_norm,
    sincos_positions,
)
from milan_pipeline.errors import ConfigError


def encoder_arguments(
    name: str,
    *,
    image_size: int | tuple[int, int] | None,
    patch_size: int | None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
) -> dict[str, Any]:
    """Return what `timm.create_model(**arguments)` needs to make this architecture again.

    The dict is plain JSON; it belongs beside the exported weights, which load into the model it
    makes strictly. Arguments are those of `build_encoder`; None leaves timm's own value.
    """
    overrides = {
        "img_size": list(image_size) if isinstance(image_size, tuple) else image_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    return {"model_name": name, "pretrained": False, "num_classes": 0, **given}


def build_encoder(
    name: str,
    *,
    image_size: int | tuple[int, int] | None,
    patch_size: int | None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
) -> VisionTransformer:
    """Build a timm vision transformer with MILAN's initialisation and fixed positions.

    Weights come from torch's global random state: seed it first.

    Args:
        name: a timm model; it must be a plain ViT with a class token and a final norm.
        image_size: pixels of a side, or (height, width); None is the model's own.
        patch_size: pixels of a patch's side; None is the model's own.
        width: E; None is the model's own, as for the next two.
        depth: blocks.
        heads: attention heads of a block.

    Returns:
        The model, without a classifier; its `pos_embed` is not trained.

    Raises:
        ConfigError: the name is unknown, the model is of another kind, or the sizes do not fit.
    """
    if not timm.is_model(name):
        raise ConfigError(
            f"--student {name!r} is no model that timm knows; `timm.list_models('vit*')` names some"
        )
    arguments = encoder_arguments(
        name, image_size=image_size, patch_size=patch_size, width=width, depth=depth, heads=heads
    )
    try:
        model = timm.create_model(**arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--student {name!r} cannot be built as asked ({reason}); "
            "choose a plain ViT such as 'vit_base_patch16_224' and sizes that divide"
        ) from error
    vit = _require_plain(model, name)
    _initialise(vit)
    return vit


def patch_size_of(name: str) -> int:
    """Return the side of a timm ViT's patches, in pixels, without making its weights.

    Raises:
        ConfigError: the name is unknown or the model is no plain ViT.
    """
    if not timm.is_model(name):
        raise ConfigError(
            f"--student {name!r} is no model that timm knows; `timm.list_models('vit*')` names some"
        )
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    return int(_require_plain(model, name).patch_embed.patch_size[0])


def _require_plain(model: nn.Module, name: str) -> VisionTransformer:
    """Return the model if `Student.encode` computes what its own forward would, else raise."""
    reasons = ["is not a plain VisionTransformer of timm"]
    if type(model) is VisionTransformer and type(model.patch_embed) is PatchEmbed:
        reasons = [reason for reason, holds in _peculiarities(model).items() if holds]
        if not reasons:
            return model
    raise ConfigError(
        f"--student {name!r} {reasons[0]}; choose a plain ViT such as 'vit_base_patch16_224'"
    )


def _peculiarities(vit: VisionTransformer) -> dict[str, bool]:
    """Map what may be special about a ViT to whether it is."""
    height, width = vit.patch_embed.img_size or (0, 0)
    p, q = vit.patch_embed.patch_size
    before_blocks = (vit.norm_pre, vit.patch_drop, vit.patch_embed.norm)
    return {
        "has no class token, or register tokens": vit.num_prefix_tokens != 1
        or not vit.has_class_token,
        "lacks positions for the class token or the patches": vit.no_embed_class
        or vit.pos_embed is None,
        "does not end in a norm of all tokens": not isinstance(vit.norm, nn.LayerNorm)
        or not isinstance(vit.fc_norm, nn.Identity),
        "has a norm or dropout before its blocks": vit.pos_drop.p > 0
        or not all(isinstance(layer, nn.Identity) for layer in before_blocks),
        f"cannot cut {height}x{width} pixels into square patches of {p}x{q}": p != q
        or bool(height % p or width % p),
    }


def _tokens(vit: VisionTransformer) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the class token and the positions, which `_require_plain` found to be there."""
    return cast("nn.Parameter", vit.cls_token), cast("nn.Parameter", vit.pos_embed)


def _initialise(vit: VisionTransformer) -> None:
    init_linear_and_norm(vit)
    projection = vit.patch_embed.proj
    nn.init.xavier_uniform_(projection.weight.flatten(1))  # a view: a linear layer on patches
    nn.init.zeros_(projection.bias)
    cls_token, positions = _tokens(vit)
    nn.init.normal_(cls_token, std=TOKEN_STD)
    positions.requires_grad_(False).copy_(
        sincos_positions(vit.patch_embed.grid_size, vit.embed_dim)
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


class Student(nn.Module):
    """Encoder and decoder that training sees as one model.

    Args:
        encoder: from `build_encoder`.
        decoder: for the same grid and encoder width.

    Raises:
        ConfigError: the decoder was made for another grid or width.
    """

    def __init__(self, encoder: VisionTransformer, decoder: PromptingDecoder) -> None:
        super().__init__()
        fits = (tuple(encoder.patch_embed.grid_size), encoder.embed_dim)
        made_for = (tuple(decoder.grid), decoder.embed.in_features)
        if fits != made_for:
            raise ConfigError(
                f"the decoder was made for grid and encoder width {made_for}, the encoder has "
                f"{fits}; build the decoder with the encoder's"
            )
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, patches_BKP: Tensor, kept_BK: Tensor) -> Tensor:
        """Run the encoder on the kept patches alone.

        (MILAN, arXiv 2208.06049, section 3; MAE, arXiv 2111.06377, section 3.)

        Args:
            patches_BKP: float, normalised pixels as `patchify` lays them out.
            kept_BK: int64, the patches' indices in the grid.

        Returns:
            float (B, S, E), CLS first, after the final norm.
        """
        vit = self.encoder
        projection = vit.patch_embed.proj
        embedded_BKE = F.linear(patches_BKP, projection.weight.flatten(1), projection.bias)
        cls_token, positions_1NE = _tokens(vit)
        tokens_BKE = embedded_BKE + positions_1NE[0, kept_BK + 1]
        cls_11E = cls_token + positions_1NE[:, :1]
        tokens_BSE = torch.cat([cls_11E.expand(len(tokens_BKE), -1, -1), tokens_BKE], dim=1)
        latent_BSE: Tensor = vit.norm(vit.blocks(tokens_BSE))
        return latent_BSE

    def forward(self, patches_BKP: Tensor, kept_BK: Tensor, masked_BM: Tensor) -> Tensor:
        """Predict the targets of all tokens from the kept patches.

        Args:
            patches_BKP: float, normalised pixels of the kept patches, as `patchify` lays them out.
            kept_BK: int64, their indices in the grid.
            masked_BM: int64, all other indices.

        Returns:
            float (B, N, D), CLS first, then the patches row-major; not normalised.
        """
        pred_BND: Tensor = self.decoder(self.encode(patches_BKP, kept_BK), kept_BK, masked_BM)
        return pred_BND


def cosine_loss(pred_BND: Tensor, target_BND: Tensor) -> Tensor:
    """Return the mean over all tokens of |p - t|^2 = 2 - 2 cos(p, t), both sides L2-normalised.

    (MILAN, arXiv 2208.06049, section 3.1; CLS and visible tokens count like masked ones.)

    Args:
        pred_BND: any float dtype; computed in float32.
        target_BND: the same.

    Returns:
        float32 scalar, in [0, 4].
    """
    pred_BND = F.normalize(pred_BND.float(), dim=-1)
    target_BND = F.normalize(target_BND.float(), dim=-1)
    return 2 - 2 * (pred_BND * target_BND).sum(dim=-1).mean()
