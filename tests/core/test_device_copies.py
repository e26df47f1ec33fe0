"""Copies to a device and back: what arrives is what was sent, whoever waits for it."""

import contextlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from milan_pipeline.core.device_copies import DeviceCopies, HostCopies, on_device
from tests.support.fake_gpu import GPU, Stream, fake_gpu

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_on_the_cpu_nothing_is_copied() -> None:
    copies = DeviceCopies(torch.device("cpu"))
    host = torch.arange(6)
    there = copies.to_device(host)
    assert there.data_ptr() == host.data_ptr()
    fetched = copies.to_host([there])
    assert [tensor.data_ptr() for tensor in fetched.wait()] == [host.data_ptr()]


@NEEDS_GPU
def test_many_batches_cross_unharmed() -> None:
    copies = DeviceCopies(torch.device("cuda"))
    sent = [torch.full((64, 3, 64, 64), number, dtype=torch.uint8) for number in range(20)]
    fetched = []
    for host in sent:
        there = copies.to_device(host.pin_memory())
        assert there.is_cuda
        fetched.append(copies.to_host([there + 1, there.float().mean()]))
    with ThreadPoolExecutor(1) as thread:
        for number, (tensor, mean) in enumerate(thread.map(lambda batch: batch.wait(), fetched)):
            assert tensor.is_pinned()
            assert bool((tensor == number + 1).all())
            assert mean.item() == number


def test_a_thread_waits_with_the_gpu_that_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins on the first GPU: waiting there for another takes its memory."""
    on: list[torch.device] = []

    @contextlib.contextmanager
    def device(of: torch.device) -> Iterator[None]:
        on.append(of)
        yield
        on.pop()

    waited: list[list[torch.device]] = []
    second = torch.device("cuda", 1)
    arrived: Any = SimpleNamespace(device=second, synchronize=lambda: waited.append([*on]))
    monkeypatch.setattr(torch.cuda, "device", device)
    assert HostCopies([], arrived).wait() == []
    assert waited == [[second]]


class Pair(NamedTuple):
    """A batch of one tensor."""

    numbers: torch.Tensor
    keys: list[str]


def test_each_batch_is_copied_while_the_one_before_it_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is computed waits for its own batch, not for the one that is copied meanwhile."""
    events: list[str] = []
    copied = itertools.count()

    def record(_: Stream) -> int:
        number = next(copied)
        events.append(f"copy {number}")
        return number

    monkeypatch.setattr(Stream, "record_event", record)
    monkeypatch.setattr(Stream, "wait_event", lambda _, event: events.append(f"wait {event}"))
    with fake_gpu():
        batches = [Pair(torch.empty(2, pin_memory=True), [str(number)]) for number in range(3)]
        for batch in on_device(iter(batches), DeviceCopies(GPU)):
            assert batch.numbers.device == GPU
            events.append(f"compute {batch.keys[0]}")
    assert events == [
        "copy 0", "copy 1", "wait 0", "compute 0", "copy 2", "wait 1", "compute 1", "wait 2",
        "compute 2",
    ]  # fmt: skip


def test_for_the_cpu_batches_come_as_they_are_and_none_ahead() -> None:
    batches = iter([Pair(torch.tensor(number), []) for number in range(3)])
    there = on_device(batches, DeviceCopies(torch.device("cpu")))
    first = next(there)
    assert first.numbers.item() == 0
    assert next(batches).numbers.item() == 1
