"""What the teacher needs of an image tower of any family.

Legend: B batch, C = 3 channels, H, W pixels, L patches row-major, N = 1 + L, D width of a token.
"""

from typing import Literal, Protocol

import torch
from torch import nn

Pooling = Literal["cls", "pool", "average"]


class Tower(Protocol):
    """An image tower that gives a feature for the image and one for each patch.

    Attributes:
        image_size: height and width of its input, in pixels.
        stride: pixels from one token to the next.
        grid: tokens down and across.
        widths: width of a token in each space that the tower has, by name.
        pooling: how the image's feature is made: CLS token, attention, or the mean.
        blocks: attention blocks in order; empty if not all tokens attend to each other.
        attentions: attention module of each block.
        pool_attention: the module whose only query pools the tokens, if there is one.
        has_cls: whether the first token is a CLS token.
        heads: number of heads of the last attention.
        activation: class of the non-linearity in the last block.
    """

    image_size: int
    stride: int
    grid: tuple[int, int]
    widths: dict[str, int]
    pooling: Pooling
    blocks: list[nn.Module]
    attentions: list[nn.Module]
    pool_attention: nn.Module | None
    has_cls: bool
    heads: int | None
    activation: str | None

    def features(self, pixels_BCHW: torch.Tensor, *, layers: int, space: str) -> torch.Tensor:
        """Compute the features of images and of their patches.

        Args:
            pixels_BCHW: normalised, `image_size` pixels square, of the tower's own type.
            layers: number of last layers whose mean is taken, each through the final norm. The
                image's feature is pooled from each of them.
            space: a key of `widths`.

        Returns:
            (B, N, D) of the tower's type. First the feature of the image; if projected, it is what
            the tower itself returns. Then the patches, through the same final norm and projection.
        """


def mean_of(layers: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean of tensors of equal shape."""
    return layers[0] if len(layers) == 1 else torch.stack(layers).mean(dim=0)
