"""Batches to the device and results back, copied while the device computes.

On a GPU two streams of their own copy, and the program only queues work: whoever needs a result
waits for it, in another thread. On the CPU nothing is copied and nobody waits.
"""

from typing import NamedTuple

import torch


class Fetched(NamedTuple):
    """Tensors on their way to the host; `wait` before they are read."""

    tensors: list[torch.Tensor]
    arrived: torch.cuda.Event | None

    def wait(self) -> list[torch.Tensor]:
        """Return the tensors when they are there; other threads run meanwhile."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.tensors


class DeviceCopies:
    """Copies to and from one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None
        if device.type == "cuda":
            self._streams = _stream(device), _stream(device)

    def bring(self, host: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device, from page-locked memory without waiting.

        The host's must stay as it is until a result that was computed from it is there.
        """
        if self._streams is None:
            return host.to(self._device)
        computing, copying = torch.cuda.current_stream(self._device), self._streams[0]
        with torch.cuda.stream(copying):
            there = host.to(self._device, non_blocking=True)
        computing.wait_stream(copying)
        there.record_stream(computing)  # its memory is not given to others before that is through
        return there

    def fetch(self, tensors: list[torch.Tensor]) -> Fetched:
        """Copy tensors to the host once they are computed, without waiting."""
        if self._streams is None:
            return Fetched([tensor.cpu() for tensor in tensors], None)
        computing, copying = torch.cuda.current_stream(self._device), self._streams[1]
        copying.wait_stream(computing)
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(copying):
            # Without blocking, torch copies into page-locked memory of its own.
            here = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
            for tensor in tensors:
                tensor.record_stream(copying)
            arrived.record(copying)
        return Fetched(here, arrived)


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
