"""The codecs that need no fitting: float16, bfloat16, and int8 with a scale for each token.

bfloat16 is for features that are too large for float16.

On the CPU, tensors are encoded in blocks of a few samples, which stay in the processor's caches:
int8 then takes a fifth of the time (measured). Other devices encode everything at once, since each
step is a kernel launch.

Legend: n samples, b samples of a block, N tokens (CLS first), D target width.
"""

from collections.abc import Iterator

import torch

from milan_pipeline.codecs.interface import Attempt, Codec, Encoded
from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.errors import DataError

FLOAT16_MAX = 65504.0
INT8_MAX = 127
CPU_BLOCK = 4
"""Samples that are encoded at a time on the CPU."""


class Float16(Codec):
    """Half precision, two bytes a component."""

    spec = CodecSpec(name="float16")

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Round to half precision."""
        tokens_nND = tokens_nND.to(torch.float32)  # no copy if they are
        codes_nND = torch.empty_like(tokens_nND, dtype=torch.float16)
        largest_nN = torch.empty_like(tokens_nND[..., 0], dtype=torch.float32)
        work_bND = workspace(tokens_nND)
        for tokens_bND, codes_bND, largest_bN in blocks(tokens_nND, codes_nND, largest_nN):
            work = work_bND[: len(tokens_bND)]
            codes_bND.copy_(tokens_bND)
            torch.amax(torch.abs(tokens_bND, out=work), -1, out=largest_bN)
        return Attempt(Encoded(codes_nND, None), all_within(largest_nN, FLOAT16_MAX))

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Widen to float32."""
        del scale_nN
        return codes_nNC.to(torch.float32)


class BFloat16(Codec):
    """The upper half of a float32: its range, and eight bits of precision."""

    spec = CodecSpec(name="bfloat16")

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Round to bfloat16; a component that rounds to infinity does not fit."""
        half_nND = tokens_nND.to(torch.bfloat16)
        fits_n = half_nND.isfinite().flatten(1).all(dim=-1)
        return Attempt(Encoded(half_nND.view(torch.uint16), None), fits_n)

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Widen to float32."""
        del scale_nN
        return codes_nNC.view(torch.bfloat16).to(torch.float32)


def all_within(largest_nN: torch.Tensor, limit: float) -> torch.Tensor:
    """Tell for each sample whether all components are within a limit."""
    # A NaN fails every comparison, so it does not fit either.
    return (largest_nN <= limit).all(dim=-1)


class Int8(Codec):
    """One byte a component, uniformly quantised with one float16 scale a token."""

    spec = CodecSpec(name="int8")

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Divide each token by its scale (its largest component over 127) and round."""
        tokens_nND = tokens_nND.to(torch.float32)  # no copy where they are
        codes_nND = torch.empty_like(tokens_nND, dtype=torch.int8)
        scale_nN = torch.empty_like(tokens_nND[..., 0], dtype=torch.float16)
        largest_nN = torch.empty_like(scale_nN, dtype=torch.float32)
        work_bND = workspace(tokens_nND)
        tensors = (tokens_nND, codes_nND, scale_nN, largest_nN)
        for tokens_bND, codes_bND, scale_bN, largest_bN in blocks(*tensors):
            work = work_bND[: len(tokens_bND)]
            torch.amax(torch.abs(tokens_bND, out=work), -1, out=largest_bN)
            # Codes must be computed with the scale as it is stored. Half precision may round it to
            # zero: then the token is zero (or all below 4e-6), and its codes are zero.
            scale_bN.copy_(largest_bN / INT8_MAX)
            divisor_bN = scale_bN.to(torch.float32)
            divisor_bN.masked_fill_(divisor_bN == 0, torch.inf)
            torch.div(tokens_bND, divisor_bN.unsqueeze_(-1), out=work)
            codes_bND.copy_(work.round_().clamp_(-INT8_MAX, INT8_MAX))
        return Attempt(Encoded(codes_nND, scale_nN), all_within(largest_nN, FLOAT16_MAX * INT8_MAX))

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Multiply each token's codes by its scale."""
        if scale_nN is None:
            raise DataError("int8 targets need their scale; read the scale array beside the codes")
        return codes_nNC.to(torch.float32) * scale_nN.to(torch.float32).unsqueeze(-1)


def _block_rows(tokens_nND: torch.Tensor) -> int:
    return CPU_BLOCK if tokens_nND.device.type == "cpu" else max(1, len(tokens_nND))


def workspace(tokens_nND: torch.Tensor) -> torch.Tensor:
    """Return an uninitialised tensor of the size of one block."""
    rows = min(_block_rows(tokens_nND), len(tokens_nND))
    return tokens_nND.new_empty((rows, *tokens_nND.shape[1:]))


def blocks(tokens_nND: torch.Tensor, *others: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Split tensors of n samples into blocks; yield the blocks of all tensors together."""
    rows = _block_rows(tokens_nND)
    return zip(*(torch.split(tensor, rows) for tensor in (tokens_nND, *others)), strict=True)
