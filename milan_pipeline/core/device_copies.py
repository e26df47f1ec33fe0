"""Copies between host and device that computing does not wait for.

On a GPU two streams of their own copy, one in each direction. On the CPU nothing is copied.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

BatchT = TypeVar("BatchT")


class HostCopies(NamedTuple):
    """Tensors that are being copied to the host; call `wait` before reading them."""

    tensors: list[torch.Tensor]
    arrived: torch.cuda.Event | None

    def wait(self) -> list[torch.Tensor]:
        """Wait for the copies and return them; other threads run meanwhile."""
        if self.arrived is not None:
            # A thread begins on the first GPU; waiting for another one there makes a context.
            with torch.cuda.device(self.arrived.device):
                self.arrived.synchronize()
        return self.tensors


class Sent(NamedTuple):
    """Tensors that are being copied to a device."""

    tensors: list[torch.Tensor]
    arrived: torch.cuda.Event | None


class DeviceCopies:
    """Copies tensors to one device and back.

    Attributes:
        device: where to and from.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None
        if device.type == "cuda":
            self._streams = _stream(device), _stream(device)

    def to_device(self, host: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device; from page-locked memory, this does not wait.

        The host's tensor must not change until a result that was computed from it is there.
        """
        (there,) = self.receive(self.send([host]))
        return there

    def send(self, host: Sequence[torch.Tensor]) -> Sent:
        """Begin to copy tensors to the device; `receive` them before computing."""
        if self._streams is None:
            return Sent([tensor.to(self.device) for tensor in host], None)
        copying = self._streams[0]
        with torch.cuda.stream(copying):
            there = [tensor.to(self.device, non_blocking=True) for tensor in host]
        return Sent(there, copying.record_event())

    def receive(self, sent: Sent) -> list[torch.Tensor]:
        """Have what is computed from now on wait for these copies, and for no later ones."""
        if sent.arrived is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(sent.arrived)
            for tensor in sent.tensors:
                tensor.record_stream(computing)  # its memory is not reused before that is done
        return sent.tensors

    def to_host(self, tensors: list[torch.Tensor]) -> HostCopies:
        """Copy tensors to the host as soon as they are computed; does not wait."""
        if self._streams is None:
            return HostCopies([tensor.cpu() for tensor in tensors], None)
        computing, copying = torch.cuda.current_stream(self.device), self._streams[1]
        copying.wait_stream(computing)
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(copying):
            # With non_blocking, torch copies into page-locked memory of its own.
            here = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
            for tensor in tensors:
                tensor.record_stream(copying)
            arrived.record(copying)
        return HostCopies(here, arrived)


def on_device(batches: Iterable[BatchT], copies: DeviceCopies) -> Iterator[BatchT]:
    """Yield batches whose tensors are on a device; to a GPU, each is copied one batch ahead.

    Args:
        batches: named tuples, some fields of which are tensors or lists of them, in page-locked
            memory for a GPU.
        copies: to the device.
    """
    if copies.device.type != "cuda":
        yield from batches
        return
    waiting: tuple[BatchT, Sent] | None = None
    for batch in batches:
        following = _sent(batch, copies)
        if waiting is not None:
            copies.receive(waiting[1])
            yield waiting[0]
        waiting = following
    if waiting is not None:
        copies.receive(waiting[1])
        yield waiting[0]


def _sent(batch: BatchT, copies: DeviceCopies) -> tuple[BatchT, Sent]:
    """Return a batch whose tensors are on their way."""
    fields: Any = batch
    sent = copies.send(tensors_of(fields))
    tensors = iter(sent.tensors)

    def there(field: Any) -> Any:
        if isinstance(field, list):
            return [there(each) for each in field]
        return next(tensors) if isinstance(field, torch.Tensor) else field

    moved: BatchT = type(fields)._make(map(there, fields))
    return moved, sent


def tensors_of(fields: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors of a batch's fields, some of which are tensors or lists of them."""
    parts = (field if isinstance(field, list) else [field] for field in fields)
    return [each for part in parts for each in part if isinstance(each, torch.Tensor)]


def stacked(tensors: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Stack tensors of one shape in host memory that can be copied without waiting."""
    batch = _host_memory_for(device, (len(tensors), *tensors[0].shape), tensors[0].dtype)
    return torch.stack(list(tensors), out=batch)


def rows_on(device: torch.device, rows: torch.Tensor, chosen_B: torch.Tensor) -> torch.Tensor:
    """Gather rows of a tensor of the host on a device, whose work the host does not wait for."""
    gathered = _host_memory_for(device, (len(chosen_B), *rows.shape[1:]), rows.dtype)
    return torch.index_select(rows, 0, chosen_B, out=gathered).to(device, non_blocking=True)


def _host_memory_for(
    device: torch.device, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """Return memory of the host, page-locked for a GPU; torch keeps that until copies are done."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
