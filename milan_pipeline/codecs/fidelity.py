"""How near decoded targets are to the originals, also where one channel hides a loss of others.

Some vision transformers have a channel with nearly half of the energy. It alone can keep a cosine
near 1. So the cosine of the other channels is measured, too.

Legend: n samples, N tokens (CLS first), D target width.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from milan_pipeline.codecs.spectrum import directions


class Cosines(NamedTuple):
    """Cosines (n, N), float64, of each token, and of its channels but the largest of its sample."""

    all_nN: torch.Tensor
    rest_nN: torch.Tensor


def cosines_of(before_nND: torch.Tensor, after_nND: torch.Tensor) -> Cosines:
    """Return the cosines between tokens before and after, float (n, N, D).

    The largest channel of a sample has the largest sum of squares over its tokens' directions.
    """
    largest_n = directions(before_nND).square().sum(dim=1).argmax(dim=-1)
    is_largest_n1D = F.one_hot(largest_n, before_nND.shape[-1]).bool()[:, None]
    before_nND, after_nND = before_nND.double(), after_nND.double()
    return Cosines(
        F.cosine_similarity(before_nND, after_nND, dim=-1),
        F.cosine_similarity(
            before_nND.masked_fill(is_largest_n1D, 0),
            after_nND.masked_fill(is_largest_n1D, 0),
            dim=-1,
        ),
    )
