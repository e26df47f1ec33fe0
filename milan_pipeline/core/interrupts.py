"""Stops a stage at a good point: the first Ctrl-C, SIGTERM or SIGUSR1 only sets a flag.

A second Ctrl-C kills the process, which does no harm to outputs. While there is nothing to keep
yet, the process may end at any point: see `exiting_at_once`. A notebook's process is not ended by a
stage: see `as_guest`.
"""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

import click

from milan_pipeline.errors import InterruptedRunError

EXIT_INTERRUPTED = 75
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ItemT = TypeVar("ItemT")
SECOND_KILLS = b"Stopping at the next good point; Ctrl-C again stops at once.\n"


@dataclasses.dataclass
class _Process:
    """Whether a stage has the process for itself."""

    is_host: bool = False


_process = _Process()


@contextlib.contextmanager
def as_guest() -> Iterator[None]:
    """Do not end the process inside the block: it is a notebook's or another program's.

    There a second Ctrl-C raises KeyboardInterrupt.
    """
    before, _process.is_host = _process.is_host, True
    try:
        yield
    finally:
        _process.is_host = before


class StopRequest:
    """Whether a stop was asked for, and by which signal.

    Attributes:
        signal_name: of the signal that came last; None as long as none has come.
        listeners: called by the signal handler, which may have interrupted anything. So they may
            not wait for a lock.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self.listeners: list[Callable[[], None]] = []

    def agreed(self, most: Callable[[float], float]) -> "StopRequest":
        """Return the request that all processes of the run agree on; each of them must call this.

        A signal that comes meanwhile counts in the next call, in all processes.

        Args:
            most: returns the largest of all processes' values.
        """
        number = most(signal.Signals[self.signal_name] if self.signal_name else 0)
        common = StopRequest()
        common.signal_name = signal.Signals(int(number)).name if number else None
        return common

    def raise_if_asked(self, what_is_kept: str) -> None:
        """End the stage if a stop was asked for.

        Raises:
            InterruptedRunError: a stop signal came.
        """
        if self.signal_name is not None:
            raise InterruptedRunError(
                f"{self.signal_name} received; {what_is_kept}; run the same command to go on"
            )

    def between(self, items: Iterable[ItemT], what_is_kept: str) -> Iterator[ItemT]:
        """Yield items, and end the stage before the next one if a stop was asked for.

        Raises:
            InterruptedRunError: a stop signal came.
        """
        for item in items:
            self.raise_if_asked(what_is_kept)
            yield item


@contextlib.contextmanager
def stop_request(*, then_ignore: bool = False) -> Iterator[StopRequest]:
    """Listen for stop signals inside the block (in the main thread; elsewhere none can come).

    Args:
        then_ignore: ignore them after the block. A launcher signals all processes that are left
            when the first one ends; they still end with their own exit codes.
    """
    request = StopRequest()

    def note(number: int, _: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        for listener in request.listeners:
            listener()
        if number == signal.SIGINT:
            at_once = signal.default_int_handler if _process.is_host else signal.SIG_DFL
            signal.signal(signal.SIGINT, at_once)
            os.write(2, SECOND_KILLS)  # not by a stream: it may be in use when the signal comes

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if then_ignore else handler)


@contextlib.contextmanager
def exiting_at_once(what_is_kept: str) -> Iterator[None]:
    """End the process with 75 as soon as a stop signal comes inside the block.

    Python calls handlers between its own instructions alone, but waiting for other processes
    happens inside a library. So a thread reads the pipe that signals are written to. To be used
    inside `stop_request`. A process that is not the stage's own (`as_guest`) does not end.
    """
    if _process.is_host or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while received := os.read(reading, 1):
            if received[0] in STOP_SIGNALS:
                name = signal.Signals(received[0]).name
                click.echo(f"Interrupted: {name} received; {what_is_kept}", err=True)
                os._exit(EXIT_INTERRUPTED)
        os.close(reading)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        listener.join()
