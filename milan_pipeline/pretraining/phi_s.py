"""PHI-S: rotate and scale a teacher's targets, so that each of their components has variance 1.

The targets' principal components are mixed by a Hadamard matrix, which gives each its share of all
variances. One number then scales them all. So no teacher dominates by the size of its values, and
distances within a teacher keep their ratios. (Ranzinger et al., arXiv 2410.01680, section 3.)

Legend: T tokens, D target width, x any leading shape.
"""

import dataclasses
import math

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.spectrum import spectrum_of
from milan_pipeline.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class PhiS:
    """What a teacher's targets are standardised by.

    Attributes:
        mean_D: float32, of the targets.
        matrix_DD: float32, a rotation divided by the root of the mean variance of a component.
    """

    mean_D: torch.Tensor
    matrix_DD: torch.Tensor

    def __call__(self, tokens_xD: torch.Tensor) -> torch.Tensor:
        """Standardise float32 targets."""
        mean_D, matrix_DD = self._on(tokens_xD.device)
        return (tokens_xD - mean_D) @ matrix_DD.T

    def undo(self, tokens_xD: torch.Tensor) -> torch.Tensor:
        """Turn standardised float32 targets, or predictions of them, into the teacher's own."""
        mean_D, matrix_DD = self._on(tokens_xD.device)
        variance = 1 / matrix_DD[0].square().sum()
        return tokens_xD @ matrix_DD * variance + mean_D

    def _on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if self.mean_D.device != device:  # once: each copy would have a GPU wait
            for name in ("mean_D", "matrix_DD"):
                object.__setattr__(self, name, getattr(self, name).to(device))
        return self.mean_D, self.matrix_DD


@dataclasses.dataclass(frozen=True)
class StandardisedTargets:
    """Decodes targets, and standardises them."""

    codec: Codec
    phi_s: PhiS

    @property
    def in_grid_order(self) -> bool:
        """Whether all tokens of a sample are decoded together, in the order of the grid."""
        return self.codec.in_grid_order

    def decode(self, codes_BTC: torch.Tensor, scale_BT: torch.Tensor | None) -> torch.Tensor:
        """Return float32 (B, T, D)."""
        return self.phi_s(self.codec.decode(codes_BTC, scale_BT))


def fit_phi_s(tokens_TD: torch.Tensor) -> PhiS:
    """Fit PHI-S to a sample of targets; sums are in float64.

    Raises:
        ConfigError: there is no Hadamard matrix of this width here.
        DataError: a target is not finite, there are fewer than two, or all are alike.
    """
    hadamard_DD = hadamard_matrix(tokens_TD.shape[1])
    if not bool(tokens_TD.isfinite().all()) or bool((tokens_TD == tokens_TD[:1]).all()):
        raise DataError(
            f"PHI-S cannot be fitted to {len(tokens_TD)} targets that are all alike, or of which "
            "some are not finite; check the images and the teacher"
        )
    # With several threads, last bits depend on their number.
    with threadpool_limits(limits=1):
        mean_D, variance_D, component_DD = spectrum_of(tokens_TD.float().cpu().numpy())
        rotation_DD = hadamard_DD @ component_DD
    deviation = math.sqrt(variance_D.mean())
    return PhiS(*(torch.from_numpy(each).float() for each in (mean_D, rotation_DD / deviation)))


def hadamard_matrix(size: int) -> NDArray[np.float64]:
    """Return an orthogonal matrix whose entries all have the same absolute value.

    Paley's first construction, doubled as by Sylvester: sizes are 2^k or 2^k (q + 1), q a prime
    with q + 1 a multiple of 4. All multiples of 64 up to 2,048 are among them.

    Raises:
        ConfigError: the size is not one of these.
    """
    halvings = 0
    while True:
        core = size >> halvings
        if core in (1, 2) or (core % 4 == 0 and _is_prime(core - 1)):
            break
        if core % 2:
            raise ConfigError(
                f"--target-norm phi-s knows no Hadamard matrix of the targets' width {size}; give "
                "--target-norm l2 or layer"
            )
        halvings += 1
    matrix = _paley(core) if core > 2 else np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / math.sqrt(size)


def _paley(size: int) -> NDArray[np.float64]:
    """Return Paley's matrix of 1 and -1 for a prime of one less."""
    prime = size - 1
    residue = np.full(prime, -1.0)
    residue[np.arange(1, prime) ** 2 % prime] = 1
    residue[0] = 0
    place = np.arange(prime)
    matrix = np.ones((size, size))
    matrix[1:, 0] = -1
    matrix[1:, 1:] = residue[(place[None] - place[:, None]) % prime] + np.eye(prime)
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
