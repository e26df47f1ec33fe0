"""Stages as processes that can be killed with all that they have started.

They are forked from a server that has imported torch once: starting one takes no seconds.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

POLL = 0.01
PATIENCE = 600.0
"""Seconds that an undisturbed process may take, on a machine that is busy with other things."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.warm"])

Words = Sequence[object]


class Victims:
    """Commands that run at the same time, each the leader of a process group of its own."""

    def __init__(self, commands: Sequence[Words], log: Path) -> None:
        """Start them.

        Args:
            commands: words of the command line of each.
            log: file for what they say.
        """
        self.log = log
        self._processes = [
            CONTEXT.Process(target=run_command, args=([str(word) for word in words], str(log)))
            for words in commands
        ]
        for process in self._processes:
            process.start()

    @property
    def pids(self) -> list[int]:
        """The processes' numbers."""
        return [process.pid or 0 for process in self._processes]

    def ended(self, seconds: float) -> bool:
        """Wait at most that long for all to end; tell whether they have."""
        deadline = time.monotonic() + seconds
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        return all(process.exitcode is not None for process in self._processes)

    def at_work(self, reached: Callable[[], bool]) -> None:
        """Return when something is so, or all have ended."""
        while not self.ended(POLL) and not reached():
            pass

    def signal(self, number: int) -> None:
        """Send a signal to all processes of each group, as a terminal does."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid or 0, number)

    def kill(self) -> None:
        """Kill all, whatever they are doing."""
        self.signal(signal.SIGKILL)
        for process in self._processes:
            process.kill()  # where it does not lead its group yet
        self.codes()

    def codes(self) -> list[int]:
        """Wait for all, and return their exit codes."""
        assert self.ended(PATIENCE), f"a process hangs; it said: {self.said()}"
        return [process.exitcode or 0 for process in self._processes]

    def said(self) -> str:
        """Return what they have written to stdout and stderr."""
        return self.log.read_text() if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.ended(0):
            self.kill()


def finish(words: Words, log: Path) -> None:
    """Run a command undisturbed, to its end."""
    with Victims([words], log) as victims:
        assert victims.codes() == [0], victims.said()


def warm(log: Path) -> None:
    """Have the server started, so that what follows can be timed."""
    finish(["--version"], log)


def run_command(words: list[str], log: str) -> None:
    """Run a command line in this process, which was forked from the server."""
    from milan_pipeline.cli.main import main

    as_a_command(log)
    main(words)


def as_a_command(log: str) -> None:
    """Make a process that was forked from the server like one that a shell has started.

    Args:
        log: file for what it says.
    """
    import torch

    os.setsid()
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(stream, standard)
    os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server ignores
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
