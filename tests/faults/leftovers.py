"""What processes leave behind when they have ended: others of theirs, shared memory."""

import contextlib
import gc
import os
import re
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from milan_pipeline.cli.main import main
from tests.faults.sameness import progress
from tests.faults.victims import POLL, as_a_command

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - is only listed


def processes_of(leaders: list[int]) -> dict[int, str]:
    """Return what lives of the sessions that processes lead: names by number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, rest = (folder / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, session, *_ = rest.split()
        if int(session) in leaders and state != "Z":
            found[int(folder.name)] = name
    return found


def shared_memory_of(pids: set[int]) -> list[str]:
    """Return the segments that are named after processes: the first number of torch's is one's."""
    names = [path.name for path in SHARED_MEMORY.iterdir()]
    return [name for name in names if pids & set(map(int, re.findall(r"\d+", name)[:1]))]


def files_open_after(
    commands: list[list[str]], outs: list[Path], begun: int, answer: Connection
) -> None:
    """Run commands in this process, each stopped by Ctrl-C as soon as it has written something.

    Args:
        commands: words of each.
        outs: what each writes.
        begun: what `progress` says of it when it is to be stopped.
        answer: gets the exit codes, and after each command the number of open file descriptors.
    """
    as_a_command("/dev/null")
    codes: list[Any] = []
    counts = []
    for words, out in zip(commands, outs, strict=True):
        with _ctrl_c_at_work(out, begun):
            try:
                main(words)
            except SystemExit as stop:
                codes.append(stop.code)
        gc.collect()  # queues between processes close theirs when they are collected
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    answer.send((codes, counts))


@contextlib.contextmanager
def _ctrl_c_at_work(out: Path, begun: int) -> Iterator[None]:
    """Send this process a SIGINT when it has written something, from a thread."""

    def watch() -> None:
        while not over.wait(POLL):
            if progress(out) >= begun:
                os.kill(os.getpid(), signal.SIGINT)
                return

    over, thread = threading.Event(), threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
