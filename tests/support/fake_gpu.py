"""A GPU for machines without one: shapes and devices are real, numbers are not.

Tensors of two devices in one operation raise, and so does reading a number back.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)


class Copy(NamedTuple):
    """A copy between host and device.

    Attributes:
        to: the type of the device that it goes to.
        bytes: how many.
        waits: whether the host waits for it: unless it is said not to be waited for and, to a GPU,
            comes from page-locked memory.
    """

    to: str
    bytes: int
    waits: bool


class Copies(TorchDispatchMode):
    """Records every copy between host and device, and what is page-locked."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Copy] = []
        # Kept, so that no other memory comes to lie there.
        self._pinned: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        options = kwargs or {}
        result = function(*args, **options)
        if options.get("pin_memory"):
            storage = result.untyped_storage()
            self._pinned[storage._cdata] = storage
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(function, given, tensor, options.get("non_blocking", False))
        return result

    def _note(
        self, function: Any, given: list[torch.Tensor], got: torch.Tensor, unwaited: bool
    ) -> None:
        there = got.device.type
        # A GPU gets a single number of the host's memory as an argument.
        moved = [each for each in given if each.device.type != there and each.ndim]
        if given and all(each.device.type != there for each in given):
            moved = given[:1]
        is_plain = function.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        for source in moved:
            pinned = source.untyped_storage()._cdata in self._pinned
            waits = not (is_plain and unwaited) or (there == "cuda" and not pinned)
            self.made.append(Copy(there, got.nbytes if is_plain else source.nbytes, waits))


class PinnedAsked(TorchDispatchMode):
    """Counts the bytes that are asked for in page-locked memory; gives out ordinary memory."""

    bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        options = dict(kwargs or {})
        pinned = options.pop("pin_memory", False)
        made = function(*args, **options)
        self.bytes += made.nbytes if pinned else 0
        return made


class Stream:
    """A queue of a GPU that has no work."""

    def __init__(self, device: Any = None) -> None:
        del device

    def wait_stream(self, other: "Stream") -> None:
        """Do nothing."""

    def record_event(self) -> object:
        """Return an event that nobody waits for."""
        return object()

    def wait_event(self, event: object) -> None:
        """Do nothing."""


@contextlib.contextmanager
def fake_gpu() -> Iterator[Copies]:
    """Run the block with a GPU that computes no numbers; the copies are recorded."""
    if torch.__version__ < "2.10":
        pytest.skip("this torch needs a driver to index tensors of a GPU, even of no numbers")
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
        mock.patch("torch.cuda.Stream", Stream),
        mock.patch("torch.cuda.Event"),
        mock.patch("torch.cuda.current_stream", return_value=Stream()),
        mock.patch("torch.cuda.stream", return_value=contextlib.nullcontext()),
        mock.patch("torch.Tensor.record_stream"),
        FakeTensorMode(allow_non_fake_inputs=True),
        Copies() as copies,
    ):
        yield copies
