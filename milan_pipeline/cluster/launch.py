"""Start several processes of one stage on this machine, as `torchrun` would, and end as they do.

`torchrun` itself exits with 1 whatever its processes exit with, and SIGUSR1 kills it, not them.
Here the exit code is theirs: 75 where they stopped as asked.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from milan_pipeline.core.console import output_words
from milan_pipeline.core.cores import own_cores
from milan_pipeline.core.interrupts import EXIT_INTERRUPTED, STOP_SIGNALS
from milan_pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

GRACE = 30.0  # seconds that the others have to end after one has failed
POLL = 0.1
EXIT_FAILED = 1
START_ANEW = (
    "start all processes by torchrun or --processes, which set it, or unset RANK and WORLD_SIZE to "
    "train in one process"
)


def launch(stage: str, config: Any, processes: int) -> int:
    """Run a stage in several processes and return one exit code for all.

    Args:
        stage: the command.
        config: its configuration, given to each.
        processes: how many; stop signals that come here are passed on to them.
    """
    words = [*words_of(config), *output_words()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return run_together(stage, [(words, shared | rank) for rank in ranks])


def run_together(
    stage: str,
    processes: Sequence[tuple[Sequence[str], Mapping[str, str]]],
    meanwhile: Callable[[], object] = lambda: None,
) -> int:
    """Run a stage in several processes, pass stop signals on, and return one exit code for all.

    Args:
        stage: the command.
        processes: the words and the own variables of each; the machine's cores are shared out.
        meanwhile: called again and again while they run; an error of it ends them.
    """
    command = [sys.executable, "-m", "milan_pipeline", stage]
    threads = max(1, own_cores() // len(processes))
    shared = {"OMP_NUM_THREADS": str(threads)} | os.environ
    started: list[subprocess.Popen[bytes]] = []
    with passing_signals_on(started) as passed:
        try:
            for words, own in processes:
                process = subprocess.Popen([*command, *words], env={**shared, **own})  # noqa: S603
                started.append(process)
            return _ended(started, meanwhile, passed)
        except BaseException:
            _end(started)
            raise


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all processes to stop, and kill those that do not within the grace."""
    for process in started:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


@contextlib.contextmanager
def passing_signals_on(started: list[subprocess.Popen[bytes]]) -> Iterator[set[int]]:
    """Pass stop signals on to processes inside the block; more processes may be added.

    Yields:
        The signals that came, so far.
    """
    passed: set[int] = set()

    def pass_on(number: int, _: FrameType | None) -> None:
        passed.add(number)
        # A terminal sends SIGINT to all processes; this one goes on waiting for the others.
        for process in started if number != signal.SIGINT else []:
            process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield passed
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ended(
    started: list[subprocess.Popen[bytes]], meanwhile: Callable[[], object], passed: set[int]
) -> int:
    """Wait for all processes; if one fails, end the others. To stop as asked is no failure.

    Args:
        started: the processes.
        meanwhile: see `run_together`.
        passed: signals that were passed on; one may come before a process listens, and ends it.
    """

    def failed(code: int | None) -> bool:
        return code not in (None, 0, EXIT_INTERRUPTED) and -code not in passed

    deadline = float("inf")
    first: list[int | None] = []  # exit codes at the first failure, before any is ended here
    while any(process.poll() is None for process in started):
        left = [process for process in started if process.returncode is None]
        if not first and any(failed(process.returncode) for process in started):
            first = [process.returncode for process in started]
            deadline = time.monotonic() + GRACE
            for process in left:
                process.terminate()
        if time.monotonic() > deadline:
            for process in left:
                process.kill()
        meanwhile()
        time.sleep(POLL)
    codes = [process.returncode for process in started]
    for rank, code in enumerate(first or codes):
        if code is not None and code < 0 and failed(code):
            logger.error(
                "process %d was ended by %s, most often because memory ran out; run the same "
                "command again to go on",
                rank,
                signal.Signals(-code).name,
            )
    failures = [code for code in codes if failed(code)]
    if failures:
        return max(EXIT_FAILED, *failures)
    return EXIT_INTERRUPTED if any(codes) else 0


def is_launched() -> bool:
    """Tell whether this process is one of several that torchrun, or `launch`, started.

    Raises:
        ConfigError: the variables by which they tell their processes do not fit together.
    """
    return launched_size() > 1


def launched_size() -> int:
    """Return how many processes torchrun, or `launch`, started; 1 where neither did.

    Raises:
        ConfigError: the variables by which they tell their processes do not fit together.
    """
    rank, size = variable("RANK", least=0), variable("WORLD_SIZE", least=1)
    if rank is None and size in (None, 1):
        return 1
    if rank is None or size is None:
        missing, there = ("RANK", "WORLD_SIZE") if rank is None else ("WORLD_SIZE", "RANK")
        raise ConfigError(f"{there} is {os.environ[there]}, but {missing} is not set; {START_ANEW}")
    if rank >= size:
        raise ConfigError(f"RANK {rank} is not below WORLD_SIZE {size}; {START_ANEW}")
    return size


def require_meeting_place() -> None:
    """Refuse to wait for other processes where nothing says where they meet.

    Raises:
        ConfigError: a variable is not set, or is no port.
    """
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise ConfigError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {name} is not set; {START_ANEW}"
            )
    variable("MASTER_PORT", least=1, most=65535)


def variable(name: str, *, least: int, most: int | None = None) -> int | None:
    """Return a whole number from the environment; None where it is not set, or empty.

    Raises:
        ConfigError: it is none, or not within `least` and `most`.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    fits = text.isascii() and text.isdigit() and least <= int(text) <= (most or int(text))
    if not fits:
        upwards = f"up to {most}" if most else "or more"
        raise ConfigError(f"{name} is {text!r}, not a number of {least} {upwards}; {START_ANEW}")
    return int(text)


def words_of(config: Any) -> list[str]:
    """Return the words of a command line that gives these options, each of several once."""
    words = []
    for field in dataclasses.fields(config):
        flag, value = field.name.replace("_", "-"), getattr(config, field.name)
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            several = value if isinstance(value, tuple) else (value,)
            words += [word for each in several for word in (f"--{flag}", str(each))]
    return words
