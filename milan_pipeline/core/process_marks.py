"""Who a process is, so that any other can tell later whether it still lives.

A number alone would not do: the system gives it to another process later. So the mark also has when
the process started. A host's name alone would not do either: containers and machines may share it.
"""

import contextlib
import dataclasses
import functools
import os
import socket
from pathlib import Path

PROC = Path("/proc")
ENDED = ("Z", "X")
"""States of a process that has ended, though its parent has not asked for its exit code yet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessMark:
    """A process of some machine.

    Attributes:
        host: the machine's name.
        machine: what tells machines and containers of one name apart, since the machine started.
        pid: the process's number there.
        began: when it started, as the system counts; empty where the system does not say.
    """

    host: str
    machine: str
    pid: int
    began: str


def this_process() -> ProcessMark:
    """Return the mark of the process that calls this."""
    pid = os.getpid()
    stat = _stat(pid)
    return ProcessMark(
        host=socket.gethostname(), machine=_machine(), pid=pid, began=stat[1] if stat else ""
    )


def is_alive(process: ProcessMark) -> bool | None:
    """Tell whether a process still runs; None if that cannot be known here.

    Nothing is known of processes of other machines, nor of those of other users where the system
    hides them.
    """
    if (process.host, process.machine) != (socket.gethostname(), _machine()):
        return None
    stat = _stat(process.pid)
    if stat is not None:
        state, began = stat
        return state not in ENDED and began == process.began
    answers = _answers(process.pid)
    return False if answers and process.began else answers


@functools.cache
def _machine() -> str:
    """Return the number of this start of the machine, and that of its space of processes."""
    found = []
    with contextlib.suppress(OSError):
        found.append((PROC / "sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        found.append(str((PROC / "self/ns/pid").readlink()))
    return " ".join(found)


def _stat(pid: int) -> tuple[str, str] | None:
    """Return a process's state and when it started; None where there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the name, in brackets, and may hold blanks and brackets itself.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]


def _answers(pid: int) -> bool | None:
    """Tell whether there is a process of a number; None if there is one of another user.

    The system may have no files of processes, or hide those of other users.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return None
    return True
