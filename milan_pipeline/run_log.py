"""What a run tells while it trains: `log.jsonl`, TensorBoard events, `state.json`."""

import contextlib
import fcntl
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from torch.utils.tensorboard import SummaryWriter

from milan_pipeline import storage
from milan_pipeline.errors import StorageError
from milan_pipeline.filesystems import named_errors

RunState = Literal["running", "interrupted", "done"]


class RunLog:
    """Append each step once; on resume, drop the lines of steps that will be done again."""

    def __init__(self, run: Path, *, resume_step: int) -> None:
        """Open the log.

        Args:
            run: the run folder.
            resume_step: steps that are kept; lines of later ones are dropped.
        """
        self._path = run / "log.jsonl"
        kept = [
            line
            for line in (self._path.read_text().splitlines() if self._path.exists() else [])
            if _step_of(line) <= resume_step
        ]
        storage.put_bytes(str(self._path), "".join(f"{line}\n" for line in kept).encode())
        with named_errors(str(run), "written"):
            self._stream = self._path.open("a")
            self._events = SummaryWriter(str(run / "tensorboard"), purge_step=resume_step + 1)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append steps; each row has `step` (from 1) and numbers.

        Raises:
            StorageError: the disk is full, or fails.
        """
        for row in rows:
            with named_errors(str(self._path), "written"):
                self._stream.write(json.dumps(row) + "\n")
                for name, value in row.items():
                    if name != "step":
                        self._events.add_scalar(name, value, row["step"])
        with named_errors(str(self._path), "written"):
            self._stream.flush()

    def close(self) -> None:
        """Flush and close both logs.

        Raises:
            StorageError: the disk is full, or fails.
        """
        with named_errors(str(self._path), "written"):
            try:
                self._stream.close()
            finally:
                self._events.close()


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
    with named_errors(str(run), "written"):
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / ".lock").open("w")
    with lock as stream:
        try:
            # Not by flock, which forked loader processes would share: those of a killed run outlive
            # it by a moment, in which it could not be run again.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another process trains into {run}; wait for it or give another --out"
            ) from error
        yield


def write_state(run: Path, state: RunState, *, step: int, total_steps: int) -> None:
    """Write `state.json`: what the run is doing and how far it has come."""
    document = {
        "state": state,
        "step": step,
        "total_steps": total_steps,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    storage.put_bytes(str(run / "state.json"), (json.dumps(document) + "\n").encode())


def trained_steps(run: Path) -> int:
    """Return the steps that a run's state tells of; 0 where there is no run."""
    path = run / "state.json"
    return int(json.loads(path.read_text())["step"]) if path.exists() else 0


def _step_of(line: str) -> float:
    """Return a line's step; a line that a kill cut short counts as never written."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
