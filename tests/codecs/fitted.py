"""Fitted codecs for tests: small, of tokens with a spectrum, made once."""

import functools

import torch

from milan_pipeline.codecs.components import ComponentCodec
from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.spec import parse_codec

WIDTH = 12
FITTED = ("vector:bytes=4", "vector:bytes=2", "transform:bytes=4", "transform:bytes=3")


def tokens(count: int, *, seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    """Draw tokens (count, D) in three clusters, whose components fall off."""
    random = torch.Generator().manual_seed(seed)
    spread_D = torch.arange(1, width + 1) ** -1.0
    centre_3D = 2 * torch.randn(3, width, generator=torch.Generator().manual_seed(99))
    cluster = torch.randint(3, (count,), generator=random)
    return centre_3D[cluster] + spread_D * torch.randn(count, width, generator=random)


@functools.cache
def fitted(text: str) -> ComponentCodec:
    """Fit a codec to 600 tokens."""
    return fit_codec(parse_codec(text), tokens(600))
