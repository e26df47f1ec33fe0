"""How targets are stored: float tokens to codes and back, behind one interface.

Legend: n samples, N tokens (CLS first), D target width, C code width.
"""

from collections.abc import Iterator
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


class Attempt(NamedTuple):
    """What encoding gave, and for which samples that can be used: `(n,)` bool, on the device."""

    encoded: Encoded
    fits_n: torch.Tensor


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
        """Return float32 tokens `(n, N, D)`."""
        ...


class Float16(Codec):
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

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Round to half precision."""
        codes_nND = torch.empty_like(tokens_nND, dtype=torch.float16)
        largest_nN = tokens_nND.new_empty(tokens_nND.shape[:2], dtype=torch.float32)
        for block, work_bND in _blocks(tokens_nND):
            codes_nND[block] = tokens_nND[block]
            torch.amax(torch.abs(tokens_nND[block], out=work_bND), -1, out=largest_nN[block])
        return Attempt(Encoded(codes_nND, None), _fits(largest_nN, FLOAT16_MAX))

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Widen to float32."""
        del scale_nN
        return codes_nNC.to(torch.float32)


class Int8(Codec):
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

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Divide each token by its scale (its largest component over 127) and round."""
        codes_nND = torch.empty_like(tokens_nND, dtype=torch.int8)
        scale_nN = tokens_nND.new_empty(tokens_nND.shape[:2], dtype=torch.float16)
        largest_nN = torch.empty_like(scale_nN, dtype=torch.float32)
        for block, work_bND in _blocks(tokens_nND):
            torch.amax(torch.abs(tokens_nND[block], out=work_bND), -1, out=largest_nN[block])
            # The codes must be made with the scale as it is stored. Half precision may round it to
            # zero, which marks a token without length (or of one below 4e-6): its codes are zero.
            scale_nN[block] = largest_nN[block] / INT8_MAX
            divisor_bN = scale_nN[block].to(torch.float32)
            divisor_bN.masked_fill_(divisor_bN == 0, torch.inf)
            torch.div(tokens_nND[block], divisor_bN.unsqueeze(-1), out=work_bND)
            codes_nND[block] = work_bND.round_().clamp_(-INT8_MAX, INT8_MAX)
        return Attempt(Encoded(codes_nND, scale_nN), _fits(largest_nN, FLOAT16_MAX * INT8_MAX))

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


def _fits(largest_nN: torch.Tensor, limit: float) -> torch.Tensor:
    # A NaN fails every comparison, so this one refuses it too.
    return (largest_nN <= limit).all(dim=-1)


def _blocks(tokens_nND: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Cut a batch into blocks, each with float32 scratch of its shape to work in.

    On the CPU a block is one sample, which stays in the core's cache from step to step: int8 takes
    a fifth of the time (measured). Elsewhere it is the whole batch, since each step is a launch.
    """
    count = len(tokens_nND)
    size = 1 if tokens_nND.device.type == "cpu" else max(1, count)
    work_bND = tokens_nND.new_empty((size, *tokens_nND.shape[1:]), dtype=torch.float32)
    for start in range(0, count, size):
        yield slice(start, start + size), work_bND
