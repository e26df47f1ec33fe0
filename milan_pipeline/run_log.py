"""What a run tells while it trains: `log.jsonl` and TensorBoard events."""

import contextlib
import fcntl
import functools
import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from torch.utils.tensorboard import SummaryWriter

from milan_pipeline import storage
from milan_pipeline.documents import MISSHAPEN, Count, parsed
from milan_pipeline.errors import StorageError
from milan_pipeline.filesystems import reason_of

EVENT_THREADS = "tensorboard.summary.writer.event_file_writer"
"""The module of their class."""


class _Row(TypedDict):
    step: Count


class RunLog:
    """Append each step once; on resume, drop the lines of steps that will be done again."""

    def __init__(self, run: Path, *, resume_step: int) -> None:
        """Open the log.

        Args:
            run: the run folder.
            resume_step: steps that are kept; lines of later ones are dropped.
        """
        self._path = run / "log.jsonl"
        text = self._path.read_text(errors="replace") if self._path.exists() else ""
        kept = [line for line in text.splitlines() if _step_of(line) <= resume_step]
        storage.put_bytes(str(self._path), "".join(f"{line}\n" for line in kept).encode())
        _hush_event_threads()
        with _on_disk(run):
            self._stream = self._path.open("a")
            self._events = SummaryWriter(str(run / "tensorboard"), purge_step=resume_step + 1)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append steps; each row has `step` (from 1) and numbers.

        Raises:
            StorageError: the disk is full, or fails.
        """
        for row in rows:
            with _on_disk(self._path):
                self._stream.write(json.dumps(row) + "\n")
                for name, value in row.items():
                    if name != "step":
                        self._events.add_scalar(name, value, row["step"])
        with _on_disk(self._path):
            self._stream.flush()

    def close(self) -> None:
        """Flush and close both logs.

        Raises:
            StorageError: the disk is full, or fails.
        """
        with _on_disk(self._path):
            try:
                self._stream.close()
            finally:
                self._events.close()


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """Name the file of a disk's error alone: a loader process's death is told at any line."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({reason_of(error)}); make room or fix it"
        ) from error


@functools.cache
def _hush_event_threads() -> None:
    """Keep the thread that writes events from printing a disk's error: the next write raises it."""
    otherwise = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        written_by = type(what.thread).__module__
        if not (issubclass(what.exc_type, OSError) and written_by == EVENT_THREADS):
            otherwise(what)

    threading.excepthook = hook


class NoLog:
    """The log of a process that writes none: rows are computed, since all processes must agree."""

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Drop the rows."""
        deque(rows, maxlen=0)

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run folder for this process; the system lets go of it when the process ends.

    Raises:
        StorageError: another process trains into it, or it cannot be written.
    """
    with _on_disk(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / ".lock").open("w")
    with lock as stream:
        try:
            # Not flock, which forked loader processes would share: those of a run that was killed
            # outlive it by seconds, and it could not be run again at once.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another process trains into {run}; wait for it or give another --out"
            ) from error
        yield


def _step_of(line: str) -> float:
    """Return a line's step; a line that is cut short or damaged counts as never written."""
    try:
        return parsed(line, _Row)["step"]
    except MISSHAPEN:
        return float("inf")
