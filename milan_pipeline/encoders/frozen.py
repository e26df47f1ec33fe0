"""Gives features of images by frozen encoders of one interface: student, CLIP tower, or pixels.

Shape suffixes: B batch, C = 3 channels, H, W pixels, N tokens, L patches, E width, F
features.
"""

from typing import Any, Protocol

import torch
from torch.nn import functional as F

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.crops import Pixels
from milan_pipeline.teacher.teacher import Teacher

POOLS = ("cls", "mean", "both")
PIXELS_SIZE, PIXELS_PATCH = 64, 8


class FrozenEncoder(Protocol):
    """What evaluation needs of an encoder.

    Attributes:
        name: shown in tables.
        image_size: height and width of its input, in pixels.
        mean: of each channel, in [0, 1]; `features` normalises the pixels itself.
        std: standard deviation of each channel, in [0, 1].
        device: where it computes.
        stride: side of a patch, in pixels.
    """

    name: str
    image_size: int
    stride: int
    mean: list[float]
    std: list[float]
    device: torch.device

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views.

        Args:
            pixels_BCHW: uint8, `image_size` pixels square, on any device.
            pool: "cls" token, "mean" of the patch tokens, or "both" side by side.

        Returns:
            (B, F) float32, on `device`.
        """

    def patches(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode the patches of views.

        Args:
            pixels_BCHW: as for `features`.

        Returns:
            (B, L, E) float32, row by row of a square grid, on `device`.
        """


class PixelEncoder:
    """The pixels of a small view as its features."""

    def __init__(self, image_size: int = PIXELS_SIZE) -> None:
        self.name = f"pixels:{image_size}"
        self.image_size, self.stride = image_size, PIXELS_PATCH
        self.mean, self.std = [0.0] * 3, [1.0] * 3
        self.device = torch.device("cpu")

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Return the pixels in [0, 1], whatever the pool: (B, 3 * size * size) float32."""
        _require_pool(pool)
        return pixels_BCHW.flatten(1).float().div_(255)

    def patches(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the pixels of patches of 8 x 8, in [0, 1]; what is left of a side is cut."""
        squares = F.unfold(pixels_BCHW.float().div_(255), PIXELS_PATCH, stride=PIXELS_PATCH)
        return squares.transpose(1, 2).contiguous()


class TeacherEncoder:
    """A CLIP image tower; its features are projected, as targets are."""

    def __init__(self, teacher: Teacher, *, name: str) -> None:
        self.name = name
        self.image_size = teacher.image_size
        self.stride = teacher.image_size // teacher.grid[0]  # its views are as its patches need
        self.mean, self.std, self.device = teacher.mean, teacher.std, teacher.device
        self._teacher = teacher

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views; see `FrozenEncoder.features`."""
        targets_BND, _ = self._teacher(pixels_BCHW)
        return _pooled(targets_BND, 1, pool)

    def patches(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode patches; see `FrozenEncoder.patches`."""
        targets_BND, _ = self._teacher(pixels_BCHW)
        return targets_BND[:, 1:]


class StudentEncoder:
    """A transformer of timm without its head; see `backbone`.

    Args:
        model: on its device.
        name: shown in tables.
        mean: of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].
        bf16: compute under bfloat16 autocast.
    """

    def __init__(
        self, model: Any, *, name: str, mean: list[float], std: list[float], bf16: bool = False
    ) -> None:
        height, width = model.patch_embed.img_size
        if height != width:
            raise ConfigError(
                f"encoder {name!r} takes {height}x{width} pixels; views are square, give one that "
                "takes those"
            )
        self.name = name
        self.image_size = int(height)
        self.stride = int(model.patch_embed.patch_size[0])
        self.mean, self.std = mean, std
        self._model = model.eval().requires_grad_(requires_grad=False)
        self.device = next(model.parameters()).device
        self._pixels = Pixels(mean, std, self.device, scaling="pixels")
        self._bf16 = bf16

    @torch.no_grad()
    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views; see `FrozenEncoder.features`."""
        if pool != "mean" and getattr(self._model, "cls_token", None) is None:
            raise ConfigError(f"encoder {self.name!r} has no CLS token; give --pool mean")
        return _pooled(self._tokens(pixels_BCHW), self._model.num_prefix_tokens, pool)

    @torch.no_grad()
    def patches(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode patches; see `FrozenEncoder.patches`."""
        return self._tokens(pixels_BCHW)[:, self._model.num_prefix_tokens :]

    def _tokens(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        pixels = self._pixels(pixels_BCHW)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            tokens_BNE: torch.Tensor = self._model.forward_features(pixels)
        return tokens_BNE.float()


def _pooled(tokens_BNE: torch.Tensor, prefix: int, pool: str) -> torch.Tensor:
    """Pool tokens of which the first is CLS and the first `prefix` are no patches."""
    _require_pool(pool)
    cls_BE, mean_BE = tokens_BNE[:, 0], tokens_BNE[:, prefix:].mean(dim=1)
    if pool == "both":
        return torch.cat([cls_BE, mean_BE], dim=1)
    return cls_BE if pool == "cls" else mean_BE


def _require_pool(pool: str) -> None:
    if pool not in POOLS:
        raise ConfigError(f"pool {pool!r} is unknown; choose one of {', '.join(POOLS)}")
