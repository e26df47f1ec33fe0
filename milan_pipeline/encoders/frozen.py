"""Frozen encoders behind one face: a trained student, a CLIP tower, or the bare pixels.

Shape suffixes: B batch, C = 3 channels, H, W pixels, N tokens, E width, F features.
"""

from typing import Any, Protocol

import torch

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.crops import Pixels
from milan_pipeline.teacher.teacher import Teacher

POOLS = ("cls", "mean", "both")
PIXELS_SIZE = 64


class FrozenEncoder(Protocol):
    """What evaluation needs of an encoder.

    Attributes:
        name: what tables call it.
        image_size: height and width of its input, in pixels.
        mean: of each channel, subtracted from pixels in [0, 1]; `features` does it.
        std: of each channel, dividing them after.
    """

    name: str
    image_size: int
    mean: list[float]
    std: list[float]

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views.

        Args:
            pixels_BCHW: uint8, `image_size` pixels square.
            pool: "cls" token, "mean" of the patch tokens, or "both" side by side.

        Returns:
            (B, F) float32, on the CPU.
        """


class PixelEncoder:
    """The pixels of a small view as its features."""

    def __init__(self, image_size: int = PIXELS_SIZE) -> None:
        self.name = f"pixels:{image_size}"
        self.image_size = image_size
        self.mean, self.std = [0.0] * 3, [1.0] * 3

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Return the pixels in [0, 1], whatever the pool: (B, 3 * size * size) float32."""
        _require_pool(pool)
        return pixels_BCHW.flatten(1).float().div_(255)


class TeacherEncoder:
    """A CLIP image tower; its features are projected, as targets are."""

    def __init__(self, teacher: Teacher, *, name: str) -> None:
        self.name = name
        self.image_size = teacher.image_size
        self.mean, self.std = teacher.mean, teacher.std
        self._teacher = teacher

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views; see `FrozenEncoder.features`."""
        targets_BND, _ = self._teacher(pixels_BCHW)
        return _pooled(targets_BND, 1, pool).cpu()


class StudentEncoder:
    """A timm transformer without its head; see `backbone`."""

    def __init__(self, model: Any, *, name: str, mean: list[float], std: list[float]) -> None:
        height, width = model.patch_embed.img_size
        if height != width:
            raise ConfigError(
                f"encoder {name!r} takes {height}x{width} pixels; views are square, give one that "
                "takes those"
            )
        self.name = name
        self.image_size = int(height)
        self.mean, self.std = mean, std
        self._model = model.eval().requires_grad_(requires_grad=False)
        self._pixels = Pixels(mean, std, next(model.parameters()).device, scaling="pixels")

    @torch.no_grad()
    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views; see `FrozenEncoder.features`."""
        if pool != "mean" and getattr(self._model, "cls_token", None) is None:
            raise ConfigError(f"encoder {self.name!r} has no CLS token; give --pool mean")
        tokens_BNE = self._model.forward_features(self._pixels(pixels_BCHW))
        return _pooled(tokens_BNE, self._model.num_prefix_tokens, pool).float().cpu()


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
