"""The interface of every codec: float tokens to codes and back; and the codes of mask priors.

With a fitted codec, the prior takes one byte a patch: its logarithm, in eighths of an octave. A
prior p becomes round(-8 log2 p), so it is decoded within a factor of 2^(1/16), 4.4%, over 32
octaves. It is never zero, so every patch can be drawn. Only ratios of priors matter to the draw.

Legend: n samples, N tokens (CLS first), L patches, D target width, C code width.
"""

from __future__ import annotations  # so that counting bytes loads no torch

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.errors import DataError

if TYPE_CHECKING:
    import torch


class Encoded(NamedTuple):
    """Codes `(n, N, C)` of the codec's dtype and, where it has one, a float16 scale `(n, N)`.

    A codec of whole images has codes `(n, 1, C)`.
    """

    codes_nNC: torch.Tensor
    scale_nN: torch.Tensor | None

    def at(self, rows: slice | torch.Tensor) -> Encoded:
        """Return some rows."""
        scale_nN = self.scale_nN
        return Encoded(self.codes_nNC[rows], None if scale_nN is None else scale_nN[rows])

    def to(self, device: torch.device) -> Encoded:
        """Return the same on a device."""
        scale_nN = self.scale_nN
        return Encoded(self.codes_nNC.to(device), None if scale_nN is None else scale_nN.to(device))


class Attempt(NamedTuple):
    """The result of encoding, and which samples the codec could encode: `(n,)` bool."""

    encoded: Encoded
    fits_n: torch.Tensor


class Codec(Protocol):
    """A way to store targets; encodes and decodes on the device of the given tensors.

    Attributes:
        spec: which codec it is, and the form of its codes.
    """

    spec: CodecSpec

    @property
    def in_grid_order(self) -> bool:
        """Whether all tokens of a sample are decoded together, in the order of the grid."""
        return self.spec.is_of_images

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records, the hash of fitted arrays included."""
        return self.spec.parameters()

    def tokens_of(self, shape: tuple[int, int]) -> int:
        """Return N, the tokens of a sample whose codes have a shape."""
        return shape[0]

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Encode float tokens without waiting for the device.

        The caller checks `fits_n`, for instance with `require_encodable`, when the codes are on the
        host. The codes of a sample that does not fit have no meaning.
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
        """Return float32 tokens `(n, N, D)`; other leading shapes work, too."""
        ...


def require_encodable(fits: bool, where: str = "") -> None:
    """Raise an error if a codec could not encode its input.

    Args:
        fits: whether it could.
        where: names the samples, for the message.

    Raises:
        DataError: it could not.
    """
    if not fits:
        raise DataError(
            "the teacher gave features that are all zero, not finite or too large for the "
            f"codec{where}; use --precision fp32 and check the teacher's weights"
        )


STEPS_PER_OCTAVE = 8
LARGEST_CODE = 255
LARGEST_FACTOR = 2 ** (0.5 / STEPS_PER_OCTAVE)
"""A decoded prior is at most this factor too large, or too small."""
SMALLEST_FLOAT = float(np.finfo(np.float32).tiny)
DECODED = np.exp2(-np.arange(LARGEST_CODE + 1) / STEPS_PER_OCTAVE).astype(np.float32)


def encode_prior(prior_nL: torch.Tensor) -> torch.Tensor:
    """Return uint8 codes of float32 priors of at most 1; priors of zero or less get code 255."""
    steps = prior_nL.clamp_min(SMALLEST_FLOAT).log2() * -STEPS_PER_OCTAVE
    return steps.round().clamp(0, LARGEST_CODE).byte()


def decode_prior(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 priors above zero of stored ones: uint8 codes, or the priors themselves."""
    # A patch whose prior softmax rounded to zero must still be drawn at times.
    is_coded = stored.dtype == np.uint8
    prior: NDArray[np.float32] = DECODED[stored] if is_coded else stored.clip(SMALLEST_FLOAT)
    return prior
