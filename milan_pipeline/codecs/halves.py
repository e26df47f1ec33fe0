"""Two bytes a component: float16, and bfloat16 for features that are too large for it.

Legend: n samples, N tokens (CLS first), D target width, b samples of a block.
"""

from typing import Any

import torch

from milan_pipeline.codec_spec import CodecSpec
from milan_pipeline.codecs.cpu_blocks import blocks, workspace
from milan_pipeline.codecs.interface import Attempt, Codec, Encoded

FLOAT16_MAX = 65504.0


class Float16(Codec):
    """Half precision, two bytes a component."""

    spec = CodecSpec(name="float16")

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return self.spec.parameters()

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Round to half precision."""
        tokens_nND = tokens_nND.to(torch.float32)  # no copy where they are
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

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return self.spec.parameters()

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Round to bfloat16; what rounds to infinity does not fit."""
        half_nND = tokens_nND.to(torch.bfloat16)
        fits_n = half_nND.isfinite().flatten(1).all(dim=-1)
        return Attempt(Encoded(half_nND.view(torch.uint16), None), fits_n)

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Widen to float32."""
        del scale_nN
        return codes_nNC.view(torch.bfloat16).to(torch.float32)


def all_within(largest_nN: torch.Tensor, limit: float) -> torch.Tensor:
    """Tell for each sample whether no token's largest component is above a limit."""
    # A NaN fails every comparison, so this one refuses it too.
    return (largest_nN <= limit).all(dim=-1)
