"""How targets are stored: float tokens to codes and back, behind one interface.

Legend: n samples, N tokens (CLS first), D target width, C code width.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from milan_pipeline.errors import ConfigError, DataError

FLOAT16_MAX = 65504.0
INT8_MAX = 127


class Encoded(NamedTuple):
    """Codes `(n, N, C)` of the codec's dtype and, where it has one, a float16 scale `(n, N)`."""

    codes_nNC: torch.Tensor
    scale_nN: torch.Tensor | None


class Codec(Protocol):
    """A way to store targets. Encode and decode run on the device of the tensors they get."""

    name: str
    dtype: np.dtype[Any]
    has_scale: bool

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records: the name and every parameter that shapes bytes."""
        ...

    def code_width(self, width: int) -> int:
        """Return C for targets of width D."""
        ...

    def encode(self, tokens_nND: torch.Tensor) -> Encoded:
        """Encode float tokens; refuses non-finite ones with a DataError."""
        ...

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Return float32 tokens `(n, N, D)`."""
        ...


class Float16:
    """Half precision, two bytes a component."""

    name = "float16"
    dtype = np.dtype("<f2")
    has_scale = False

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return {"name": self.name}

    def code_width(self, width: int) -> int:
        """One code a component."""
        return width

    def encode(self, tokens_nND: torch.Tensor) -> Encoded:
        """Round to half precision.

        Raises:
            DataError: a component is not finite or beyond half precision's range.
        """
        _require_encodable(tokens_nND, FLOAT16_MAX)
        return Encoded(tokens_nND.to(torch.float16), None)

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Widen to float32."""
        del scale_nN
        return codes_nNC.to(torch.float32)


class Int8:
    """One byte a component, uniformly quantised with one float16 scale a token."""

    name = "int8"
    dtype = np.dtype("i1")
    has_scale = True

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return {"name": self.name}

    def code_width(self, width: int) -> int:
        """One code a component."""
        return width

    def encode(self, tokens_nND: torch.Tensor) -> Encoded:
        """Divide each token by its scale (its largest component over 127) and round.

        Raises:
            DataError: a component is not finite or too large for a float16 scale.
        """
        _require_encodable(tokens_nND, FLOAT16_MAX * INT8_MAX)
        largest_nN = tokens_nND.abs().amax(dim=-1).to(torch.float32)
        # The codes must be made with the scale as it is stored. Half precision may round it to
        # zero, which marks a token without length (or of one below 4e-6): all its codes are zero.
        scale_nN = (largest_nN / INT8_MAX).to(torch.float16)
        divisor_nN1 = scale_nN.to(torch.float32).unsqueeze(-1)
        scaled_nND = torch.where(divisor_nN1 > 0, tokens_nND / divisor_nN1, 0.0)
        codes_nND = scaled_nND.round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8)
        return Encoded(codes_nND, scale_nN)

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Multiply each token's codes by its scale."""
        if scale_nN is None:
            raise DataError("int8 targets need their scale; read the scale array beside the codes")
        return codes_nNC.to(torch.float32) * scale_nN.to(torch.float32).unsqueeze(-1)


CODECS: dict[str, type[Float16] | type[Int8]] = {"float16": Float16, "int8": Int8}


def make_codec(name: str) -> Codec:
    """Return the codec of a name.

    Raises:
        ConfigError: there is no such codec.
    """
    if name not in CODECS:
        raise ConfigError(f"--codec {name!r} is unknown; choose one of {', '.join(CODECS)}")
    return CODECS[name]()


def codec_of(parameters: dict[str, Any]) -> Codec:
    """Rebuild the codec that an identity records.

    Raises:
        DataError: this version does not know it.
    """
    name = str(parameters.get("name"))
    if name not in CODECS or make_codec(name).parameters() != parameters:
        raise DataError(
            f"targets are stored with the codec {parameters!r}, which this version does not know; "
            "use the version that wrote them"
        )
    return make_codec(name)


def _require_encodable(tokens_nND: torch.Tensor, limit: float) -> None:
    # A NaN fails every comparison, so this one line refuses it too.
    if tokens_nND.numel() and not bool(tokens_nND.abs().amax() <= limit):
        raise DataError(
            "the teacher gave features that are not finite or too large for the codec; "
            "use --precision fp32 and check the teacher's weights"
        )
