"""A GPU for machines without one: shapes and devices are real, numbers are not.

Tensors of two devices in one operation raise, and so does reading a number back.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)


class Copy(NamedTuple):
    """A copy between host and device: where to, and how many bytes."""

    to: str
    bytes: int


class Copies(TorchDispatchMode):
    """Records every copy between host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Copy] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        result = function(*args, **(kwargs or {}))
        given, got = tree_leaves((args, kwargs)), tree_leaves(result)
        sources = {each.device.type for each in given if isinstance(each, torch.Tensor)}
        for tensor in got:
            if isinstance(tensor, torch.Tensor) and sources and tensor.device.type not in sources:
                self.made.append(Copy(tensor.device.type, tensor.nbytes))
        return result


@contextlib.contextmanager
def fake_gpu() -> Iterator[Copies]:
    """Run the block with a GPU that computes no numbers; the copies are recorded."""
    with (
        # Else autocast would be off, and what runs under it another program.
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.cuda._exchange_device", return_value=0),
        mock.patch("torch.cuda._maybe_exchange_device", return_value=0),
        # A GPU's random state, which draws nothing here.
        mock.patch("torch.cuda.get_rng_state", return_value=torch.zeros(0)),
        mock.patch("torch.cuda.set_rng_state"),
        mock.patch("torch.cuda.manual_seed"),
        FakeTensorMode(allow_non_fake_inputs=True),
        Copies() as copies,
    ):
        yield copies
