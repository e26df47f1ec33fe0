"""What every codec is: float tokens to codes and back, on the device of the tensors it gets.

Legend: n samples, N tokens (CLS first), D target width, C code width.

The mask prior in one byte a patch: its logarithm, in eighths of an octave.

A prior p becomes round(-8 log2 p), so it comes back within a factor of 2^(1/16), 4.4%, over 32
octaves, and is never zero: every patch stays drawable. Only ratios matter to the draw.

Legend: n samples, L patches.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.spec import CodecSpec
from milan_pipeline.errors import DataError


class Encoded(NamedTuple):
    """Codes `(n, N, C)` of the codec's dtype and, where it has one, a float16 scale `(n, N)`."""

    codes_nNC: torch.Tensor
    scale_nN: torch.Tensor | None

    def at(self, rows: slice | torch.Tensor) -> "Encoded":
        """Return some rows."""
        scale_nN = self.scale_nN
        return Encoded(self.codes_nNC[rows], None if scale_nN is None else scale_nN[rows])

    def to(self, device: torch.device) -> "Encoded":
        """Return the same on a device."""
        scale_nN = self.scale_nN
        return Encoded(self.codes_nNC.to(device), None if scale_nN is None else scale_nN.to(device))


class Attempt(NamedTuple):
    """What encoding gave, and for which samples that can be used: `(n,)` bool, on the device."""

    encoded: Encoded
    fits_n: torch.Tensor


class Codec(Protocol):
    """A way to store targets. Encode and decode run on the device of the tensors they get.

    Attributes:
        spec: which codec it is, and what its codes look like.
    """

    spec: CodecSpec

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records: all that shapes bytes, fitted arrays by their hash."""
        ...

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Encode float tokens without waiting for the device.

        The verdict travels with the codes: `require_encodable` where they land. Codes of a sample
        that does not fit are meaningless.
        """
        ...

    def encode(self, tokens_nND: torch.Tensor) -> Encoded:
        """Encode float tokens.

        Raises:
            DataError: a component is not finite or too large for the codec.
        """
        attempt = self.try_encode(tokens_nND)
        require_encodable(bool(attempt.fits_n.all()))
        return attempt.encoded

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Return float32 tokens `(n, N, D)`, or of any other leading shape."""
        ...


def require_encodable(fits: bool, where: str = "") -> None:
    """Refuse what a codec could not encode.

    Args:
        fits: whether it could.
        where: names the samples, for the message.

    Raises:
        DataError: it could not.
    """
    if not fits:
        raise DataError(
            f"the teacher gave features that are not finite or too large for the codec{where}; "
            "use --precision fp32 and check the teacher's weights"
        )


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
