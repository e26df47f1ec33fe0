"""Something goes wrong at a chosen moment of a stage that runs in this process.

A stage is disturbed from outside: by its remote store, by a signal, or by what torch calls.
"""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from milan_pipeline.cli.main import main
from tests.support.remote import Action, Request, answering

PATIENCE = 60.0
"""Seconds until a test gives up waiting for what must happen."""


def send_signal(name: str) -> None:
    """Have this process handle a signal now; one that is sent is handled some time later."""
    number = signal.Signals[name]
    handler = signal.getsignal(number)
    assert callable(handler)
    handler(number, None)


@contextlib.contextmanager
def at_put(
    happens: Callable[[Request], object], *, at: str = "", after: bool = False
) -> Iterator[None]:
    """Have something happen before, or after, each object of such a path that is put."""

    def answer(request: Request, action: Action) -> Any:
        if request.doing != "put" or at not in request.path:
            return action()
        if not after:
            happens(request)
        result = action()
        if after:
            happens(request)
        return result

    with answering(answer):
        yield


@contextlib.contextmanager
def once_at_put(at: str, happens: Callable[[], object]) -> Iterator[None]:
    """Have something happen before the first object of such a path is put; what it puts is not."""
    done = threading.Event()

    def first(_: Request) -> None:
        if not done.is_set():
            done.set()
            happens()

    with at_put(first, at=at):
        yield


@contextlib.contextmanager
def stopped_at_put(at: str, name: str = "SIGTERM") -> Iterator[None]:
    """Have a signal come when the first object of such a path is put."""
    with once_at_put(at, lambda: send_signal(name)):
        yield


@contextlib.contextmanager
def stopped_and_held(name: str = "SIGTERM", at: str = "images-") -> Iterator[None]:
    """Have a signal come when workers put the first object, and hold what they put until the end.

    Progress reports are not held.
    """
    came, ended = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if "/progress/" in request.path:
            return
        if not came.is_set():
            came.set()
            send_signal(name)
        assert ended.wait(PATIENCE)

    with at_put(hold, at=at):
        try:
            yield
        finally:
            ended.set()
    assert came.is_set()


class Killed(BaseException):
    """No handler of the program may catch it."""


def run_and_kill(writes: int, *words: object) -> bool:
    """Run a command whose output is `watched`, and kill it after so many writes, if there are more.

    Returns:
        Whether it was killed.
    """
    counted = itertools.count()

    def kill(request: Request) -> None:
        if "/progress/" in request.path:  # written by another thread, which this would not kill
            return
        if next(counted) >= writes:
            raise Killed

    with at_put(kill):
        try:
            main([str(word) for word in words])
        except Killed:
            return True
    return False


@contextlib.contextmanager
def before_steps(happens: Callable[[torch.optim.Optimizer], None]) -> Iterator[None]:
    """Have a function be called with every optimiser before it changes weights."""
    handle = register_optimizer_step_pre_hook(lambda optimiser, *_: happens(optimiser))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def at_step(number: int, happens: Callable[[], object]) -> Iterator[None]:
    """Have something happen before a run changes its weights for the n-th time, from 1."""
    counted = itertools.count(1)

    def count(_: torch.optim.Optimizer) -> None:
        if next(counted) == number:
            happens()

    with before_steps(count):
        yield


@contextlib.contextmanager
def one_rate_for_all_layers() -> Iterator[None]:
    """Have every group of weights learn at the highest rate of any."""

    def level(optimiser: torch.optim.Optimizer) -> None:
        highest = max(group["lr"] for group in optimiser.param_groups)
        for group in optimiser.param_groups:
            group["lr"] = highest

    with before_steps(level):
        yield


@contextlib.contextmanager
def before_modules(happens: Callable[..., None]) -> Iterator[None]:
    """Have a function be called with every module of torch, and its inputs, before it computes."""
    handle = register_module_forward_pre_hook(happens)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def asked_to_stop_at_scoring(number: int, kind: type[nn.Module]) -> Iterator[None]:
    """Have SIGTERM come before a model of a kind scores its n-th batch, from 1."""
    counted = itertools.count(1)

    def ask(module: nn.Module, _: object) -> None:
        if isinstance(module, kind) and not module.training and next(counted) == number:
            os.kill(os.getpid(), signal.SIGTERM)

    with before_modules(ask):
        yield


@contextlib.contextmanager
def no_targets(error: Exception) -> Iterator[None]:
    """Have the teacher raise an error instead of giving targets."""

    def fail(*_: object) -> None:
        raise error

    with before_modules(fail):
        yield
