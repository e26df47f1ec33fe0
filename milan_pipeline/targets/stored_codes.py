"""Codes and decoded targets of a unit that is open for reading; `reader` has what needs no torch.

Legend: n samples, N = 1 + L tokens (CLS first), D target width, C code width.
"""

from collections.abc import Sequence

import torch

from milan_pipeline.codecs.interface import Codec, Encoded
from milan_pipeline.targets.reader import StoredUnit


def codes_of(unit: StoredUnit, rows: Sequence[int] | None = None) -> Encoded:
    """Read codes (n, N, C) and, where the codec has one, the scale (n, N).

    Args:
        unit: is read.
        rows: their numbers, ascending; None for all.

    Raises:
        DataError: an object of the unit is missing or damaged.
        StorageError: the store cannot be read.
    """
    codes_nNC = torch.from_numpy(unit.values("codes", rows))
    scale_nN = torch.from_numpy(unit.values("scale", rows)) if unit.has("scale") else None
    return Encoded(codes_nNC, scale_nN)


def decoded_targets(
    unit: StoredUnit, codec: Codec, rows: Sequence[int] | None = None
) -> torch.Tensor:
    """Read and decode targets (n, N, D), float32; see `codes_of`."""
    return codec.decode(*codes_of(unit, rows))
