"""Kinds of tokens: a matrix for each, and which kind and centre a token is coded best with.

Legend: n samples, L patches, T tokens, D target width; S kinds, E centres of a kind, A
classes (all centres of all kinds), K components, T tiers too; B blocks of b tokens, I and O
columns; x stands for any leading shape.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.spectrum import fill_water

BLOCKS_A_KIND = 4
LOWEST_PRICE, HIGHEST_PRICE = -9.0, 2.0
"""Of a byte, as a power of ten, in squared errors; the highest is above any error."""
BISECTIONS = 20
LEAST_ERROR = 1e-3
"""A smaller share would be lost in the rounding of float32, and no byte leaves less in practice."""


class Expectation(NamedTuple):
    """How well a kind's components are coded by the bytes of each tier, if they are Gaussian.

    A component of b bits keeps 4^-b of its variance as error. Half of this error grows with the
    component's square, since what is far from the mean is coded worse.

    Attributes:
        kept_STK: float32, the share of each component's square that is no error.
        floor_ST: float32, the error of a token that is its centre.
    """

    kept_STK: torch.Tensor
    floor_ST: torch.Tensor


def expectation_of(spread_SK: NDArray[np.float32], bits_T: Sequence[float]) -> Expectation:
    """Distribute the bits of each tier over each kind's components, and expect."""
    variance_SK = spread_SK.astype(np.float64) ** 2
    bits_STK = np.stack(
        [np.stack([_filled(variance_K, bits) for bits in bits_T]) for variance_K in variance_SK]
    )
    error_STK = np.where(bits_STK > 0, np.maximum(4.0**-bits_STK, LEAST_ERROR) / 2, 0)
    floor_ST = (variance_SK[:, None] * error_STK).sum(axis=-1)
    kept_STK = np.where(bits_STK > 0, 1 - error_STK, 0)
    kept, floor = (torch.from_numpy(each.astype(np.float32)) for each in (kept_STK, floor_ST))
    return Expectation(kept, floor)


def _filled(variance_K: NDArray[np.float64], bits: float) -> NDArray[np.float64]:
    return fill_water(variance_K, bits) if bits > 0 else np.zeros_like(variance_K)


def expected_losses(
    rest_xD: torch.Tensor,
    centre_ED: torch.Tensor,
    basis_KD: torch.Tensor,
    *,
    kept_TK: torch.Tensor,
    floor_T: torch.Tensor,
    tier_E: torch.Tensor,
) -> torch.Tensor:
    """Return the squared errors (x, E) that coding with each centre of a kind would leave.

    Args:
        rest_xD: tokens, less what their kind predicts.
        centre_ED: centres of the kind.
        basis_KD: its components.
        kept_TK: of its `Expectation`.
        floor_T: likewise.
        tier_E: the tier of each centre.
    """
    value_xK, middle_EK = rest_xD @ basis_KD.T, centre_ED @ basis_KD.T
    kept_EK = kept_TK[tier_E]
    own_xE = (rest_xD.square().sum(dim=-1, keepdim=True) - value_xK.square() @ kept_TK.T)[
        ..., tier_E
    ]
    of_centre_E = centre_ED.square().sum(dim=-1) - (middle_EK.square() * kept_EK).sum(dim=-1)
    both_xE = rest_xD @ centre_ED.T - value_xK @ (kept_EK * middle_EK).T
    return own_xE + (of_centre_E + floor_T[tier_E]) - 2 * both_xE


class Choice(NamedTuple):
    """The best class of each tier for each patch, and the error that it is expected to leave."""

    class_nLT: torch.Tensor
    loss_nLT: torch.Tensor


def best_of_tiers(loss_nLA: torch.Tensor, tier_A: torch.Tensor, tiers: int) -> Choice:
    """Find the best class of each tier, of the expected losses of all classes."""
    found = [loss_nLA.masked_fill(tier_A != tier, torch.inf).min(dim=-1) for tier in range(tiers)]
    return Choice(
        torch.stack([each.indices for each in found], dim=-1),
        torch.stack([each.values for each in found], dim=-1),
    )


def within_budget(loss_nLT: torch.Tensor, bytes_T: torch.Tensor, budget: float) -> torch.Tensor:
    """Choose the tiers (n, L) that lose least, of so many bytes in all for each sample.

    A byte has one price for all patches of a sample, which is the lowest that keeps within the
    budget. (Shoham and Gersho, Efficient bit allocation for an arbitrary set of quantizers, 1988.)
    """
    low_n = loss_nLT.new_full((len(loss_nLT),), LOWEST_PRICE)
    high_n = loss_nLT.new_full((len(loss_nLT),), HIGHEST_PRICE)
    for _ in range(BISECTIONS):
        price_n = (low_n + high_n) / 2
        keeps_n = bytes_T[_at_price(loss_nLT, bytes_T, price_n)].sum(dim=-1) <= budget
        low_n, high_n = (
            torch.where(keeps_n, low_n, price_n), torch.where(keeps_n, price_n, high_n),
        )  # fmt: skip
    return _at_price(loss_nLT, bytes_T, high_n)


def _at_price(loss_nLT: torch.Tensor, bytes_T: torch.Tensor, price_n: torch.Tensor) -> torch.Tensor:
    return (loss_nLT + (10**price_n)[:, None, None] * bytes_T).argmin(dim=-1)


def times_matrix_of_kind(
    vector_TI: torch.Tensor, kind_T: torch.Tensor, matrix_SIO: torch.Tensor
) -> torch.Tensor:
    """Multiply each vector by the matrix of its kind; return (T, O)."""
    if vector_TI.device.type == "cpu":
        return kind_by_kind(vector_TI, kind_T, matrix_SIO)
    return in_blocks(vector_TI, kind_T, matrix_SIO)


def kind_by_kind(
    vector_TI: torch.Tensor, kind_T: torch.Tensor, matrix_SIO: torch.Tensor
) -> torch.Tensor:
    """Multiply by one matrix after the other; no matrix is copied."""
    product_TO = vector_TI.new_empty((len(vector_TI), matrix_SIO.shape[2]))
    for kind, matrix_IO in enumerate(matrix_SIO):
        rows = (kind_T == kind).nonzero()[:, 0]
        product_TO[rows] = vector_TI[rows] @ matrix_IO
    return product_TO


def in_blocks(
    vector_TI: torch.Tensor, kind_T: torch.Tensor, matrix_SIO: torch.Tensor
) -> torch.Tensor:
    """Gather vectors of a kind in blocks of a fixed size, some of which stay in part empty.

    So all shapes are known beforehand, and nothing waits for the device.
    """
    kinds, count = len(matrix_SIO), len(vector_TI)
    size = max(1, -(-count // (BLOCKS_A_KIND * kinds)))
    blocks = count // size + kinds
    is_kind_TS = kind_T[:, None] == torch.arange(kinds, device=kind_T.device)
    rank_TS = is_kind_TS.cumsum(dim=0)
    rank_T = rank_TS.gather(1, kind_T[:, None])[:, 0] - 1
    last_S = (is_kind_TS.sum(dim=0) + size - 1).div(size, rounding_mode="floor").cumsum(dim=0)
    first_S = torch.nn.functional.pad(last_S, (1, 0))[:-1]
    place_T = first_S[kind_T] * size + rank_T
    number_B = torch.arange(blocks, device=kind_T.device)
    kind_B = torch.searchsorted(last_S, number_B, right=True).clamp(max=kinds - 1)
    gathered = vector_TI.new_zeros((blocks * size, vector_TI.shape[1]))
    gathered[place_T] = vector_TI
    product_BbO = gathered.reshape(blocks, size, vector_TI.shape[1]) @ matrix_SIO[kind_B]
    return product_BbO.flatten(0, 1)[place_T]
