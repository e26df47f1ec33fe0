"""Makes patch features small enough for a page, which finds a patch's nearest ones by itself.

Directions are projected on their first principal axes (about the origin, so that inner products
stay cosines) and stored as uint8 between the smallest and the largest value of each axis. What this
loses is measured.

Legend: P patches of all views, L of one, D target width, R axes kept.
"""

import base64
import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.spectrum import directions

AXES = 48
STEPS = 255
PROBES = 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours:
    """What the page gets.

    Attributes:
        features: base64 of uint8 (P, R), view by view.
        low: of each axis, what 0 stands for.
        step: of each axis, between two values.
        error: mean absolute difference between the page's cosines and those of the full targets.
        agreement: share of patches whose nearest patch in another view is the same by both.
    """

    features: str
    low: list[float]
    step: list[float]
    error: float
    agreement: float

    def for_page(self) -> dict[str, Any]:
        """Return what its script reads."""
        return {"features": self.features, "low": self.low, "step": self.step}


def find_neighbours(patches_nLD: torch.Tensor, seed: int) -> Neighbours:
    """Reduce the patches of some views.

    Args:
        patches_nLD: float32.
        seed: of the patches by which the loss is measured.
    """
    views, patches, _ = patches_nLD.shape
    direction_PD = directions(patches_nLD.flatten(0, 1))
    moment_DD = (direction_PD.T @ direction_PD).double().numpy()
    axes_RD = np.linalg.eigh(moment_DD)[1][:, ::-1].T[:AXES]
    value_PR = direction_PD.numpy() @ axes_RD.T.astype(np.float32)
    low_R, spread_R = value_PR.min(axis=0), np.ptp(value_PR, axis=0)
    step_R = np.where(spread_R > 0, spread_R, 1) / STEPS
    codes_PR = np.round((value_PR - low_R) / step_R).astype(np.uint8)
    reduced_PR = low_R + codes_PR * step_R
    error, agreement = _measured(direction_PD.numpy(), reduced_PR, patches, seed)
    return Neighbours(
        features=base64.b64encode(codes_PR.tobytes()).decode(),
        low=[float(f"{value:.6g}") for value in low_R],
        step=[float(f"{value:.6g}") for value in step_R],
        error=error,
        agreement=agreement if views > 1 else 1.0,
    )


def _measured(
    full_PD: NDArray[np.float32], reduced_PR: NDArray[np.float32], patches: int, seed: int
) -> tuple[float, float]:
    """Return the mean error of cosines and how often both name one nearest patch elsewhere."""
    generator = np.random.Generator(np.random.PCG64(seed))
    probes = generator.choice(len(full_PD), min(PROBES, len(full_PD)), replace=False)
    full_pP, reduced_pP = full_PD[probes] @ full_PD.T, reduced_PR[probes] @ reduced_PR.T
    error = float(np.abs(full_pP - reduced_pP).mean())
    own_pP = (probes // patches)[:, None] == np.arange(len(full_PD))[None] // patches
    nearest_p, found_p = (
        np.where(own_pP, -np.inf, cosine_pP).argmax(axis=1) for cosine_pP in (full_pP, reduced_pP)
    )
    return error, float((nearest_p == found_p).mean())
