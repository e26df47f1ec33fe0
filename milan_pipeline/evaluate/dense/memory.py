"""A memory of labelled patches, and the labels of other patches by their neighbours in it.

The method is that of Balazevic and others, Towards In-context Scene Understanding (arXiv
2306.01667). Its numbers, 30 neighbours and a temperature of 0.02, and how patches are drawn are
those of the public reproduction open-hummingbird-eval.

Legend: L patches of an image, E width, Y classes, M patches in the memory, Q patches that ask,
K neighbours.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from milan_pipeline.core.keyed_random import keyed_generator

ROWS_AT_ONCE = 8192
"""Patches of the memory that are compared at a time, which bounds the memory that it takes."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Patches to look up: features of length 1 (M, E), and their shares of classes (M, Y)."""

    feature_ME: Tensor
    share_MY: Tensor

    def shares(self, patch_QE: Tensor, *, neighbours: int, temperature: float) -> Tensor:
        """Return the shares of classes (Q, Y) of the nearest patches, the nearer the more.

        Args:
            patch_QE: features of any length, on the device of the memory.
            neighbours: K.
            temperature: of the softmax over the cosines to the neighbours.
        """
        cosine_QK, place_QK = self.nearest(F.normalize(patch_QE, dim=-1), neighbours)
        weight_QK = torch.softmax(cosine_QK / temperature, dim=-1)
        return (weight_QK[..., None] * self.share_MY[place_QK]).sum(dim=1)

    def missing_classes(self) -> list[int]:
        """Return the classes that no patch holds."""
        missing_Y = ~(self.share_MY > 0).any(dim=0)
        return [int(number) for number in missing_Y.nonzero().flatten()]

    def nearest(self, patch_QE: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        """Return the largest cosines (Q, K), and the places of their patches in the memory.

        Args:
            patch_QE: features of length 1.
            neighbours: K; of a smaller memory, all patches.
        """
        cosines, places = [], []
        for first in range(0, len(self.feature_ME), ROWS_AT_ONCE):
            cosine_QM = patch_QE @ self.feature_ME[first : first + ROWS_AT_ONCE].T
            best_QK, place_QK = cosine_QM.topk(min(neighbours, cosine_QM.shape[1]), dim=1)
            cosines.append(best_QK)
            places.append(place_QK + first)
        cosine_QN, place_QN = torch.cat(cosines, dim=1), torch.cat(places, dim=1)
        best_QK, at_QK = cosine_QN.topk(min(neighbours, cosine_QN.shape[1]), dim=1)
        return best_QK, place_QN.gather(1, at_QK)


def drawn_patches(share_LY: Tensor, count: int, key: str, seed: int) -> Tensor:
    """Draw patches of an image for the memory, those of rare classes first.

    A patch's score is the number of patches that hold its classes, times a number drawn from 0 to
    1; the patches of the smallest scores are taken. Patches without a labelled pixel never are.

    Args:
        share_LY: see `views.shares_of`.
        count: the most patches to take.
        key: of the image, which the draw depends on.
        seed: of the draw.

    Returns:
        Their places, int64, ascending.
    """
    holds_LY = (share_LY > 0).double()
    score_L = holds_LY @ holds_LY.sum(dim=0)
    drawn_L = keyed_generator("memory", seed, key).random(len(share_LY))
    score_L *= torch.from_numpy(np.asarray(drawn_L)).to(score_L.device)
    is_labelled_L = holds_LY.any(dim=1)
    taken = min(count, int(is_labelled_L.sum()))
    order_L = score_L.masked_fill(~is_labelled_L, torch.inf).argsort()
    return order_L[:taken].sort().values
