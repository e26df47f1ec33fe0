"""Kinds of tokens: a matrix for each, and which kind and centre a token is coded best with.

Legend: n samples, L patches, T tokens, D target width; S kinds, E centres of a kind, K components;
B blocks of b tokens, I and O columns; x stands for any leading shape.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.spectrum import fill_water

BLOCKS_A_KIND = 4

LEAST_ERROR = 1e-3
"""A smaller share would be lost in the rounding of float32, and no byte leaves less in practice."""


class Expectation(NamedTuple):
    """How well a kind's components are coded by some bits, if they are Gaussian.

    A component of b bits keeps 4^-b of its variance as error. Half of this error grows with the
    component's square, since what is far from the mean is coded worse.

    Attributes:
        kept_SK: float32, the share of each component's square that is no error.
        floor_S: float32, the error of a token that is its centre.
    """

    kept_SK: torch.Tensor
    floor_S: torch.Tensor


def expectation_of(spread_SK: NDArray[np.float32], bits: int) -> Expectation:
    """Distribute bits over each kind's components, of known standard deviations, and expect."""
    variance_SK = spread_SK.astype(np.float64) ** 2
    bits_SK = np.stack([fill_water(variance_K, bits) for variance_K in variance_SK])
    error_SK = np.where(bits_SK > 0, np.maximum(4.0**-bits_SK, LEAST_ERROR) / 2, 0)
    floor_S = (variance_SK * error_SK).sum(axis=1)
    kept_SK = np.where(bits_SK > 0, 1 - error_SK, 0)
    kept, floor = (torch.from_numpy(each.astype(np.float32)) for each in (kept_SK, floor_S))
    return Expectation(kept, floor)


def expected_losses(
    rest_xD: torch.Tensor,
    centre_ED: torch.Tensor,
    basis_KD: torch.Tensor,
    kept_K: torch.Tensor,
    floor: torch.Tensor,
) -> torch.Tensor:
    """Return the squared errors (x, E) that coding with each centre of a kind would leave.

    Args:
        rest_xD: tokens, less what their kind predicts.
        centre_ED: centres of the kind.
        basis_KD: its components.
        kept_K: of its `Expectation`.
        floor: likewise.
    """
    value_xK, middle_EK = rest_xD @ basis_KD.T, centre_ED @ basis_KD.T
    own_x = rest_xD.square().sum(dim=-1) - value_xK.square() @ kept_K
    of_centre_E = centre_ED.square().sum(dim=-1) - middle_EK.square() @ kept_K
    both_xE = rest_xD @ centre_ED.T - (value_xK * kept_K) @ middle_EK.T
    return own_x[..., None] + (of_centre_E + floor) - 2 * both_xE


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
