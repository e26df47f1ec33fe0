"""Make batches of single examples, and join the parts of a batch.

A batch is a `NamedTuple` of tensors, or lists of them, whose last field is `keys`, the samples'
names.
"""

from collections.abc import Callable, Sequence
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
    return _combine(examples, lambda field: torch.from_numpy(np.stack(_arrays(field))))


def join(parts: list[BatchT], *, pinned: bool = False) -> BatchT:
    """Join workers' parts in lane order.

    Args:
        parts: of one batch.
        pinned: join them in page-locked memory, from which a GPU copies without a wait. Torch
            keeps that memory, and gives it out again when the copy is done.
    """
    if pinned:
        return _combine(parts, _joined_in_pinned_memory)
    if len(parts) == 1:
        return parts[0]
    return _combine(parts, lambda field: torch.from_numpy(np.concatenate(_arrays(field))))


def _combine(
    parts: list[BatchT], together: Callable[[Sequence[torch.Tensor]], torch.Tensor]
) -> BatchT:
    """Put each field's tensors together with one thread.

    Torch would copy with all threads, and wait for those whose cores the loader processes use. That
    took ten to a hundred milliseconds a batch on two cores, where the copy itself takes two.
    """
    kind: Any = type(parts[0])
    *fields, keys = zip(*(tuple(part) for part in parts), strict=True)  # type: ignore[arg-type]
    tensors = [_each(field, together) for field in fields]
    batch: BatchT = kind._make([*tensors, [key for part_keys in keys for key in part_keys]])
    return batch


def _each(field: Sequence[Any], together: Callable[[Sequence[torch.Tensor]], torch.Tensor]) -> Any:
    """Put a field's tensors together; of lists, those at each place."""
    if isinstance(field[0], list):
        return [together(tensors) for tensors in zip(*field, strict=True)]
    return together(field)


def _joined_in_pinned_memory(field: Sequence[torch.Tensor]) -> torch.Tensor:
    shape = (sum(len(part) for part in field), *field[0].shape[1:])
    joined = torch.empty(shape, dtype=field[0].dtype, pin_memory=True)
    np.concatenate(_arrays(field), out=joined.numpy())
    return joined


def _arrays(field: Sequence[torch.Tensor]) -> list[NDArray[Any]]:
    return [part.numpy() for part in field]
