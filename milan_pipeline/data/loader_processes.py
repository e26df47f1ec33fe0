"""Send batches from loader processes, and pass on what goes wrong there.

A batch travels in shared memory. By default, torch puts it there in a thread that only prints its
errors: with a full /dev/shm, training would wait for ever. Here the batch is put there before that,
at a place from which errors are passed on.
"""

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from milan_pipeline.core.device_copies import tensors_of
from milan_pipeline.core.interrupts import STOP_SIGNALS
from milan_pipeline.core.loader_deaths import MORE_SHARED_MEMORY
from milan_pipeline.errors import MilanError, StorageError, reason_of
from milan_pipeline.images.budget import LedgerRow

PARENT_SECONDS = 0.5
"""Time between two checks of a loader process whether its parent is still there."""


def start_fork_server() -> None:
    """Where loader processes come from a fork server, start it so that stop signals spare it.

    From Python 3.14 on they do by default. If a signal that a scheduler sends to every process
    ended the server, torch would take its workers for dead.
    """
    if multiprocessing.get_start_method() != "forkserver":
        return
    resource_tracker.ensure_running()  # as it unblocks signals where the server starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Part(NamedTuple):
    """What a loader process sends for its lanes' part of a step.

    Attributes:
        batch: its examples.
        unreadable: the images that it could not decode, each sent once.
    """

    batch: Any
    unreadable: list[LedgerRow]


def carry_errors(parts: Iterator[Part]) -> Iterator[Part | MilanError]:
    """Pass our errors on as data, since a loader would hide them in a worker's traceback."""
    try:
        for part in parts:
            _share(part.batch)
            yield part
    except MilanError as error:
        # A new error, without the traceback. If tblib is installed (Dask installs it), a traceback
        # is pickled too, and keeps alive the frames that unpickle it, and with them the workers.
        yield type(error)(*error.args)


def next_part(loader: Iterator[Part | MilanError]) -> Part:
    """Return the next part from a loader process, or raise the error that it sent.

    Raises:
        RuntimeError: there is no more. A `StopIteration` would end the callers' own loops, and
            training with them, as if all steps were done.
    """
    part = next(loader, None)
    if part is None:
        raise RuntimeError("the loader ended before the steps did")
    if isinstance(part, MilanError):
        raise part
    return part


def _share(batch: Iterable[Any]) -> None:
    """Move a batch's tensors to shared memory, in a loader process.

    Raises:
        StorageError: /dev/shm is full.
    """
    if get_worker_info() is None:
        return
    tensors = tensors_of(batch)
    try:
        for tensor in tensors:
            if tensor.numel():
                tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        size = sum(tensor.nbytes for tensor in tensors)
        raise StorageError(
            f"a loader process finds no room in /dev/shm for {size} bytes of a batch "
            f"({' '.join(str(error).split())}); {MORE_SHARED_MEMORY}"
        ) from error


@contextlib.contextmanager
def explained_start() -> Iterator[None]:
    """Explain why loader processes cannot be started; the first batch starts them.

    Raises:
        StorageError: /dev/shm is full, or too many files are open.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise StorageError(
                f"loader processes cannot be started ({reason_of(error)}); give fewer --workers, "
                "or allow more files (ulimit -n)"
            ) from error
        if error.errno != errno.ENOSPC:
            raise
        raise StorageError(
            f"loader processes cannot be started ({error}): /dev/shm is full; {MORE_SHARED_MEMORY}"
        ) from error


def leave_stop_to_parent(_: int) -> None:
    """Let only the process that asked for it stop a worker; schedulers signal every process.

    The worker ends soon after that one; torch would check for that every five seconds only. A
    worker may have been forked by a server of that process, and not by that process itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent, forked_by = multiprocessing.parent_process(), os.getppid()
    is_direct = parent is None or parent.pid == forked_by
    stopper = forked_by if parent is None else parent.pid

    def is_alone() -> bool:
        # Workers that were forked later keep open what tells the end of their common parent.
        if is_direct:
            return os.getppid() != forked_by
        return parent is not None and not parent.is_alive()

    def listen() -> None:
        while not is_alone():
            received = signal.sigtimedwait(STOP_SIGNALS, PARENT_SECONDS)
            if received is not None and received.si_pid == stopper:
                break
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
