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
CPU_BLOCK = 4
"""Samples that are encoded at a time on the CPU."""


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
        tokens_nND = tokens_nND.to(torch.float32)  # no copy where they are
        codes_nND = torch.empty_like(tokens_nND, dtype=torch.float16)
        largest_nN = torch.empty_like(tokens_nND[..., 0], dtype=torch.float32)
        work_bND = _workspace(tokens_nND)
        for tokens_bND, codes_bND, largest_bN in _blocks(tokens_nND, codes_nND, largest_nN):
            work = work_bND[: len(tokens_bND)]
            codes_bND.copy_(tokens_bND)
            torch.amax(torch.abs(tokens_bND, out=work), -1, out=largest_bN)
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
        tokens_nND = tokens_nND.to(torch.float32)  # no copy where they are
        codes_nND = torch.empty_like(tokens_nND, dtype=torch.int8)
        scale_nN = torch.empty_like(tokens_nND[..., 0], dtype=torch.float16)
        largest_nN = torch.empty_like(scale_nN, dtype=torch.float32)
        work_bND = _workspace(tokens_nND)
        tensors = (tokens_nND, codes_nND, scale_nN, largest_nN)
        for tokens_bND, codes_bND, scale_bN, largest_bN in _blocks(*tensors):
            work = work_bND[: len(tokens_bND)]
            torch.amax(torch.abs(tokens_bND, out=work), -1, out=largest_bN)
            # The codes must be made with the scale as it is stored. Half precision may round it to
            # zero, which marks a token without length (or of one below 4e-6): its codes are zero.
            scale_bN.copy_(largest_bN / INT8_MAX)
            divisor_bN = scale_bN.to(torch.float32)
            divisor_bN.masked_fill_(divisor_bN == 0, torch.inf)
            torch.div(tokens_bND, divisor_bN.unsqueeze_(-1), out=work)
            codes_bND.copy_(work.round_().clamp_(-INT8_MAX, INT8_MAX))
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


def _block_rows(tokens_nND: torch.Tensor) -> int:
    """Return how many samples are encoded at a time.

    On the CPU a few, which stay in its caches from step to step: int8 takes a fifth of the time
    (measured). Elsewhere all of them, since each step is a launch.
    """
    return CPU_BLOCK if tokens_nND.device.type == "cpu" else max(1, len(tokens_nND))


def _workspace(tokens_nND: torch.Tensor) -> torch.Tensor:
    """Return scratch for one block."""
    rows = min(_block_rows(tokens_nND), len(tokens_nND))
    return tokens_nND.new_empty((rows, *tokens_nND.shape[1:]))


def _blocks(tokens_nND: torch.Tensor, *others: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Cut tensors of n samples into blocks, side by side."""
    rows = _block_rows(tokens_nND)
    return zip(*(torch.split(tensor, rows) for tensor in (tokens_nND, *others)), strict=True)
