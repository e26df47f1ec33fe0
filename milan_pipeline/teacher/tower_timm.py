"""timm's towers, under open_clip or by themselves.

Transformers: SigLIP, EVA, PE, MobileCLIP-B, ViTamin and plain ones. Towers that end in a feature
map: ConvNeXt, Swin, FastViT, ResNet.

Legend: B batch, L patches or positions row-major, N tokens: P prefix tokens (CLS, registers) or one
for the image, and L; W width of a token, C channels of a map, D target width.
"""

from typing import Any

import torch
from open_clip.timm_model import TimmModel
from torch import nn
from torch.func import functional_call

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.timm_visual import TimmVisual
from milan_pipeline.teacher.tower import Pooling, mean_of


class TimmTower:
    """A timm trunk that is a transformer over all patches; see `tower.Tower`."""

    pooling: Pooling
    heads: int | None
    activation: str | None

    def __init__(self, visual: TimmModel | TimmVisual, name: str) -> None:
        trunk: Any = visual.trunk
        head: Any = visual.head
        self._trunk, self._head = trunk, head
        self.image_size = int(visual.image_size[0])
        self.stride = int(trunk.feature_info[-1]["reduction"])
        grid = trunk.patch_embed.dynamic_feat_size((self.image_size, self.image_size))
        self.grid = (int(grid[0]), int(grid[1]))
        self.pool_attention: nn.Module | None = getattr(trunk, "attn_pool", None)
        self.has_cls = getattr(trunk, "cls_token", None) is not None
        if self.pool_attention is not None:
            self.pooling = "pool"
        else:
            self.pooling = "cls" if trunk.global_pool == "token" else "average"
        if getattr(self.pool_attention, "latent_len", 1) != 1 or hasattr(visual.head, "pool"):
            raise ConfigError(
                f"--teacher {name!r} pools in a way that gives no feature of a single patch; "
                "choose another, such as ViT-B-16-SigLIP"
            )
        self.blocks = list(trunk.blocks)
        self.attentions = [block.attn for block in self.blocks]
        self.heads = int(self.attentions[-1].num_heads)
        self.activation = _activation(self.blocks[-1].mlp)
        self.widths = self._widths()

    def features(self, pixels_BCHW: torch.Tensor, *, layers: int, space: str) -> torch.Tensor:
        """Compute the features of images and of their patches; see `tower.Tower.features`."""
        if layers == 1:
            found = [self._trunk.forward_features(pixels_BCHW)]
        else:
            found = self._last(pixels_BCHW, layers)
        hidden_BNW = mean_of([self._hidden(tokens_BNW) for tokens_BNW in found])
        return self._project(hidden_BNW) if space == "projected" else hidden_BNW

    def _last(self, pixels_BCHW: torch.Tensor, layers: int) -> list[torch.Tensor]:
        """Return the tokens after each of the last blocks, through the final norm: (B, N, W)."""
        prefix = self._trunk.num_prefix_tokens > 0
        found = self._trunk.forward_intermediates(
            pixels_BCHW,
            indices=layers,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
            **({"return_prefix_tokens": True} if prefix else {}),
        )
        return [torch.cat([item[1], item[0]], dim=1) if prefix else item for item in found]

    def _hidden(self, tokens_BNW: torch.Tensor) -> torch.Tensor:
        """Pool; the trunk applies its norm to all tokens or, as `fc_norm`, to the pooled one."""
        pooled_BW = self._trunk.forward_head(tokens_BNW, pre_logits=True)
        patches_BLW = self._trunk.fc_norm(tokens_BNW[:, self._trunk.num_prefix_tokens :])
        return torch.cat([pooled_BW.unsqueeze(1), patches_BLW], dim=1)

    def _project(self, hidden_BNW: torch.Tensor) -> torch.Tensor:
        """Apply the trunk's own classifier and open_clip's head; one of them is the projection."""
        projected_BND: torch.Tensor = self._head(self._trunk.head(hidden_BNW))
        return projected_BND

    @torch.no_grad()
    def _widths(self) -> dict[str, int]:
        like = next(self._trunk.parameters())
        hidden = int(self._trunk.num_features)
        if self._head is None:
            return {"hidden": hidden}
        probe = torch.zeros(1, 1, hidden, device=like.device, dtype=like.dtype)
        return {"hidden": hidden, "projected": int(self._project(probe).shape[-1])}


def is_token_trunk(trunk: Any) -> bool:
    """Tell whether a timm trunk is a transformer whose patches all attend to each other."""
    parts = ("patch_embed", "num_prefix_tokens", "fc_norm", "head", "blocks")
    if not all(hasattr(trunk, part) for part in parts):
        return False
    return all(hasattr(getattr(block, "attn", None), "num_heads") for block in trunk.blocks)


def _activation(mlp: nn.Module) -> str:
    return type(getattr(mlp, "act", mlp)).__name__


class MapTower:
    """A timm trunk that ends in a feature map; see `tower.Tower`.

    The positions of the map are the tokens. Each goes through the head as a map of one position,
    and so through the same norm and projection as the pooled feature of the image.
    """

    blocks: list[nn.Module] = []  # noqa: RUF012 - there are none
    attentions: list[nn.Module] = []  # noqa: RUF012
    pooling: Pooling = "average"
    pool_attention: nn.Module | None = None
    has_cls = False
    heads: int | None = None
    activation: str | None = None

    def __init__(self, visual: TimmModel | TimmVisual, name: str) -> None:
        self._trunk: Any = visual.trunk
        self._head: Any = visual.head
        self._last = str(getattr(self._trunk, "output_fmt", "NCHW")).endswith("NHWC")
        self.image_size = int(visual.image_size[0])
        self.stride = int(self._trunk.feature_info[-1]["reduction"])
        shape = _map_shape(self._trunk, self.image_size)
        if len(shape) != 4 or hasattr(visual.head, "pool"):
            raise ConfigError(
                f"--teacher {name!r} ({type(self._trunk).__name__}) gives neither patches nor a "
                "feature map that its head takes by the position; choose another, such as ViT-B-16"
            )
        self.grid = (shape[1], shape[2]) if self._last else (shape[2], shape[3])
        channels = shape[3] if self._last else shape[1]
        self.widths = self._widths(channels)

    def features(self, pixels_BCHW: torch.Tensor, *, layers: int, space: str) -> torch.Tensor:  # noqa: ARG002
        """Compute the features of images and of their patches; `layers` is 1."""
        found = self._trunk.forward_features(pixels_BCHW)
        tokens_BLC = found.flatten(1, 2) if self._last else found.flatten(2).transpose(1, 2)
        pooled_BD = self._through_head(found, space)
        each_BLD = self._through_head(self._alone(tokens_BLC), space)
        each_BLD = each_BLD.reshape(*tokens_BLC.shape[:2], -1)
        return torch.cat([pooled_BD.unsqueeze(1), each_BLD], dim=1)

    def _alone(self, tokens_BLC: torch.Tensor) -> torch.Tensor:
        """Make a map of one position out of each token."""
        tokens = tokens_BLC.flatten(0, 1)
        return tokens[:, None, None, :] if self._last else tokens[:, :, None, None]

    def _through_head(self, maps: torch.Tensor, space: str) -> torch.Tensor:
        pooled = self._trunk.forward_head(maps, pre_logits=space == "hidden")
        result: torch.Tensor = pooled if space == "hidden" else self._head(pooled)
        return result

    @torch.no_grad()
    def _widths(self, channels: int) -> dict[str, int]:
        like = next(self._trunk.parameters())
        probe = self._alone(torch.zeros(1, 1, channels, device=like.device, dtype=like.dtype))
        return {
            space: int(self._through_head(probe, space).shape[-1])
            for space in (("hidden",) if self._head is None else ("hidden", "projected"))
        }


class _Features(nn.Module):
    """A trunk without its head, as a module."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.trunk.forward_features(pixels_BCHW)
        return features


@torch.no_grad()
def _map_shape(trunk: nn.Module, image_size: int) -> tuple[int, ...]:
    """Find the shape of a trunk's features on torch's meta device, without computing them."""
    module = _Features(trunk)
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = {name: tensor.to("meta") for name, tensor in state.items()}
    dtype = next(module.parameters()).dtype
    pixels = torch.empty(1, 3, image_size, image_size, device="meta", dtype=dtype)
    return tuple(functional_call(module, state, (pixels,)).shape)
