"""The mask prior in one byte a patch: its logarithm, in eighths of an octave.

A prior p becomes round(-8 log2 p), so it comes back within a factor of 2^(1/16), 4.4%, over 32
octaves, and is never zero: every patch stays drawable. Only ratios matter to the draw.

Legend: n samples, L patches.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

STEPS_PER_OCTAVE = 8
LARGEST_CODE = 255
LARGEST_FACTOR = 2 ** (0.5 / STEPS_PER_OCTAVE)
"""By which a prior may come back too large, or too small."""
SMALLEST_FLOAT = float(np.finfo(np.float32).tiny)
DECODED = np.exp2(-np.arange(LARGEST_CODE + 1) / STEPS_PER_OCTAVE).astype(np.float32)


def encode_prior(prior_nL: torch.Tensor) -> torch.Tensor:
    """Return uint8 codes of float32 priors, at most 1; what is not above zero gets the last."""
    steps = torch.log2(prior_nL.clamp_min(SMALLEST_FLOAT)) * -STEPS_PER_OCTAVE
    return steps.round().clamp(0, LARGEST_CODE).to(torch.uint8)


def decode_prior(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 priors above zero from what is stored: uint8 codes, or priors as they are."""
    # A patch that softmax rounded to zero must stay drawable.
    is_coded = stored.dtype == np.uint8
    prior: NDArray[np.float32] = DECODED[stored] if is_coded else stored.clip(SMALLEST_FLOAT)
    return prior
