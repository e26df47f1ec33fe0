"""One byte a component, with a scale for each token.

Legend: n samples, N tokens (CLS first), D target width, b samples of a block.
"""

from typing import Any

import torch

from milan_pipeline.codec_spec import CodecSpec
from milan_pipeline.codecs.cpu_blocks import blocks, workspace
from milan_pipeline.codecs.halves import FLOAT16_MAX, all_within
from milan_pipeline.codecs.interface import Attempt, Codec, Encoded
from milan_pipeline.errors import DataError

INT8_MAX = 127


class Int8(Codec):
    """One byte a component, uniformly quantised with one float16 scale a token."""

    spec = CodecSpec(name="int8")

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return self.spec.parameters()

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
            # The codes must be made with the scale as it is stored. Half precision may round it to
            # zero, which marks a token without length (or of one below 4e-6): its codes are zero.
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
