"""Principal components of directions, and the bits that a Gaussian of their variances needs.

Legend: T tokens, D target width.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

BISECTIONS = 200


class Spectrum(NamedTuple):
    """Mean (D,), variances (D,) descending, and components (D, D), one a row, of directions."""

    mean_D: NDArray[np.float64]
    variance_D: NDArray[np.float64]
    component_DD: NDArray[np.float64]


def directions(tokens_xD: torch.Tensor) -> torch.Tensor:
    """Scale tokens of any finite length to length 1, in float32; zero stays zero."""
    tokens_xD = tokens_xD.to(torch.float32)
    # Divided by the largest component first, so that squares neither overflow nor vanish.
    largest = tokens_xD.abs().amax(dim=-1, keepdim=True)
    return F.normalize(tokens_xD / largest.masked_fill(largest == 0, 1), dim=-1)


def spectrum_of(vectors_TD: NDArray[np.float32]) -> Spectrum:
    """Return the principal components of vectors; the sign of each is fixed."""
    mean_D = vectors_TD.mean(axis=0, dtype=np.float64)
    centred_TD = vectors_TD - mean_D
    return Spectrum(mean_D, *principal(centred_TD.T @ centred_TD / len(vectors_TD)))


def principal(
    covariance_DD: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances (D,), descending, and components (D, D), one a row, of fixed signs."""
    variance_D, columns_DD = np.linalg.eigh(covariance_DD)
    component_DD = columns_DD[:, ::-1].T
    largest_D = np.abs(component_DD).argmax(axis=1)
    signs_D = np.sign(component_DD[np.arange(len(component_DD)), largest_D])
    return variance_D[::-1].clip(0), component_DD * signs_D[:, None]


def fill_water(variance_D: NDArray[np.float64], bits: float) -> NDArray[np.float64]:
    """Allocate bits to Gaussian components by reverse water-filling.

    (Cover and Thomas, Elements of Information Theory, theorem 10.3.3.)

    Args:
        variance_D: variances of the components.
        bits: bits of all components together.

    Returns:
        Bits (D,) of each component, as fractions; zero below the water level.
    """
    positive = variance_D[variance_D > 0]
    if not len(positive):
        return np.zeros_like(variance_D)
    # If every component had all the bits, the level would be below any solution.
    low, high = np.log2(positive.min()) - 2 * bits, np.log2(positive.max())
    for _ in range(BISECTIONS):
        level = (low + high) / 2
        low, high = (level, high) if _bits_above(variance_D, level).sum() > bits else (low, level)
    return _bits_above(variance_D, high)


def gaussian_bound(variance_D: NDArray[np.float64], distortion: float) -> tuple[float, int]:
    """Return the fewest bits that can code a Gaussian with a given mean squared error.

    (Cover and Thomas, theorem 10.3.3.)

    Args:
        variance_D: variances of its components.
        distortion: mean squared error, summed over components.

    Returns:
        Bits a vector, and the number of components above the water level, which alone are coded.
    """
    if distortion >= variance_D.sum():
        return 0.0, 0
    low, high = 0.0, float(variance_D.max())
    for _ in range(BISECTIONS):
        level = (low + high) / 2
        below = np.minimum(variance_D, level).sum()
        low, high = (low, level) if below > distortion else (level, high)
    bits_D = _bits_above(variance_D, np.log2(max(high, np.finfo(np.float64).tiny)))
    return float(bits_D.sum()), int((bits_D > 0).sum())


def _bits_above(variance_D: NDArray[np.float64], log_level: float) -> NDArray[np.float64]:
    log_variance_D = np.log2(np.maximum(variance_D, np.finfo(np.float64).tiny))
    bits_D: NDArray[np.float64] = np.maximum(log_variance_D - log_level, 0) / 2
    return bits_D


def effective_rank(variance_D: NDArray[np.float64]) -> float:
    """Return the number of components of equal variance that have the same entropy of shares.

    (Roy and Vetterli, The effective rank, EUSIPCO 2007, applied to variances.)
    """
    share_D = variance_D[variance_D > 0] / variance_D.sum()
    return float(np.exp(-(share_D * np.log(share_D)).sum()))
