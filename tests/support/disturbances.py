"""Something goes wrong at a chosen moment of a stage that runs in this process."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from milan_pipeline import storage
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import InterruptedRunError
from milan_pipeline.extraction import loop


@contextlib.contextmanager
def stopped_after(checks: int, name: str = "SIGTERM") -> Iterator[None]:
    """Have a signal found when a stage has checked for one so many times in vain."""
    counted = itertools.count()

    def raise_if_asked(request: StopRequest, _: str) -> None:
        if next(counted) == checks:
            request.signal_name = name
            raise InterruptedRunError(f"{name} received")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "raise_if_asked", raise_if_asked)
        yield


@contextlib.contextmanager
def at_loss_of(task: type[Any], step: int, happens: Callable[[], object]) -> Iterator[None]:
    """Have something happen when a task is asked for the loss of a step."""
    loss = task.loss

    def disturbed(self: Any, replica: Any, data: Any, part: slice, now: int) -> Any:
        if now == step:
            happens()
        return loss(self, replica, data, part, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "loss", disturbed)
        yield


@contextlib.contextmanager
def no_targets(error: Exception) -> Iterator[None]:
    """Have the first batch of an extraction raise an error instead of giving targets."""

    def raising(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compute", raising)
        yield


@contextlib.contextmanager
def at_put(happens: Callable[[str, bytes], object], *, after: bool = False) -> Iterator[None]:
    """Have something happen before each whole file that is written, or after it."""
    put = storage.put_bytes

    def put_bytes(url: str, data: bytes) -> None:
        for step in (put, happens) if after else (happens, put):
            step(url, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "put_bytes", put_bytes)
        yield
