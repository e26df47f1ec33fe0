"""Square views of images and masks, and the share of each class in each patch.

Legend: B batch, C channels, S height and width of a view, G of the grid of patches, L = G² patches,
P = S / G side of a patch in pixels, Y classes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from milan_pipeline.data.labelled import decoded_image
from milan_pipeline.errors import BadImageError
from milan_pipeline.evaluate.segmentation.masks import IGNORED, Labels
from milan_pipeline.images.budget import LedgerRow, ledger_row


class DenseView(NamedTuple):
    """A view: uint8 pixels (C, S, S), uint8 labels (S, S), key and place of its image."""

    pixels_CSS: Tensor
    labels_SS: Tensor
    key: str
    number: int


class ShowView:
    """Turn a sample into a view: image and mask are resized to a square, whatever their shape.

    open-hummingbird-eval does so when it scores: pixels bilinearly, labels to the nearest.

    Args:
        size: S.
        labels: decodes masks.
    """

    def __init__(self, size: int, labels: Labels) -> None:
        self._size = (size, size)
        self._labels = labels

    def __call__(self, sample: dict[str, Any]) -> DenseView | LedgerRow:
        """Return a view, or why the image cannot be decoded.

        Raises:
            DataError: the mask cannot be used; it is named.
        """
        try:
            image = decoded_image(sample)
        except BadImageError as error:
            return ledger_row(sample, error)
        labels = Image.fromarray(self._labels(sample, (image.height, image.width)))
        pixels_SSC = np.asarray(image.resize(self._size, Image.Resampling.BILINEAR))
        labels_SS = np.array(labels.resize(self._size, Image.Resampling.NEAREST))
        return DenseView(
            torch.from_numpy(pixels_SSC.transpose(2, 0, 1).copy()),
            torch.from_numpy(labels_SS),
            str(sample["__key__"]),
            int(sample["number"]),
        )


def shares_of(labels_BSS: Tensor, grid: int, classes: int) -> Tensor:
    """Return the share of each class in the labelled pixels of each patch, float32 (B, L, Y).

    A patch without a labelled pixel has zeros.

    Args:
        labels_BSS: uint8 labels.
        grid: G, by which S can be divided.
        classes: Y.
    """
    batch, size, _ = labels_BSS.shape
    side = size // grid
    labels_BGPGP = labels_BSS.long().view(batch, grid, side, grid, side)
    labels_BLp = labels_BGPGP.transpose(2, 3).reshape(batch, grid * grid, side * side)
    places_BLp = labels_BLp.masked_fill(labels_BLp == IGNORED, classes)
    count_BLY = torch.zeros(batch, grid * grid, classes + 1, device=labels_BSS.device)
    count_BLY.scatter_add_(2, places_BLp, torch.ones_like(places_BLp, dtype=torch.float32))
    count_BLY = count_BLY[..., :classes]
    return count_BLY / count_BLY.sum(dim=-1, keepdim=True).clamp_min(1)
