"""What every codec is: float tokens to codes and back, on the device of the tensors it gets.

Legend: n samples, N tokens (CLS first), D target width, C code width.
"""

from typing import Any, NamedTuple, Protocol

import torch

from milan_pipeline.codec_spec import CodecSpec
from milan_pipeline.errors import DataError


class Encoded(NamedTuple):
    """Codes `(n, N, C)` of the codec's dtype and, where it has one, a float16 scale `(n, N)`."""

    codes_nNC: torch.Tensor
    scale_nN: torch.Tensor | None


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
