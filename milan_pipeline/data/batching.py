"""Make batches of single examples, and join the parts of a batch.

A batch is a `NamedTuple` of tensors whose last field is `keys`, the samples' names.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray


class Keyed(Protocol):
    """What every batch has, apart from its tensors."""

    @property
    def keys(self) -> list[str]:
        """The samples' names, in order."""


BatchT = TypeVar("BatchT", bound=Keyed)
BatchT_contra = TypeVar("BatchT_contra", bound=Keyed, contravariant=True)


def stack(examples: list[BatchT]) -> BatchT:
    """Make a batch of single examples, whose tensors have no batch dimension."""
    return _combine(examples, np.stack)


def join(parts: list[BatchT]) -> BatchT:
    """Join workers' parts in lane order."""
    return parts[0] if len(parts) == 1 else _combine(parts, np.concatenate)


def _combine(parts: list[BatchT], together: Callable[[list[NDArray[Any]]], NDArray[Any]]) -> BatchT:
    """Put tensors together with one thread.

    Torch would copy with all threads, and wait for those whose cores the loader processes use. That
    took ten to a hundred milliseconds a batch on two cores, where the copy itself takes two.
    """
    kind: Any = type(parts[0])
    *fields, keys = zip(*(tuple(part) for part in parts), strict=True)  # type: ignore[arg-type]
    tensors = [torch.from_numpy(together([part.numpy() for part in field])) for field in fields]
    batch: BatchT = kind._make([*tensors, [key for part_keys in keys for key in part_keys]])
    return batch
