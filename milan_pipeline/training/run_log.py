"""A run's log: a row of each step in `log.jsonl`, in TensorBoard's events and, if asked, in W&B.

Only the first of several processes has one.
"""

import contextlib
import functools
import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict

from torch.utils.tensorboard import SummaryWriter

from milan_pipeline import storage
from milan_pipeline.core.schema import Count, DocumentError, parsed
from milan_pipeline.storage.space import write_error
from milan_pipeline.training.wandb_log import WandbLog

LOG_NAME = "log.jsonl"
EVENT_THREADS = "tensorboard.summary.writer.event_file_writer"
"""The module of the class of the threads that write events."""


class RunLog:
    """Log each step once; on resume, lines of steps that will be repeated are dropped.

    All is on the disk when the block ends; how it ends is how the run ends in W&B.
    """

    def __init__(self, run: Path, *, resume_step: int, wandb: str | None = None) -> None:
        """Open the log.

        Args:
            run: the run folder.
            resume_step: the last step whose line is kept.
            wandb: project of Weights & Biases that gets the log, too.

        Raises:
            StorageError: the disk is full, or fails.
            ConfigError, DataError: see `WandbLog`.
        """
        self._path, self._events_folder = run / LOG_NAME, run / "tensorboard"
        with contextlib.ExitStack() as opened:
            self._wandb = None if wandb is None else opened.enter_context(WandbLog(run, wandb))
            self._drop_after(resume_step)
            _hush_event_threads()
            with on_disk(self._path):
                self._stream = self._path.open("a")
            opened.callback(self._close_stream)
            with on_disk(self._events_folder):
                self._events = SummaryWriter(str(self._events_folder), purge_step=resume_step + 1)
            opened.callback(self._close_events)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append steps; each row has `step` (from 1) and numbers.

        Raises:
            StorageError: the disk is full, or fails.
        """
        for row in rows:
            with on_disk(self._path):
                self._stream.write(json.dumps(row) + "\n")
            self._show(row["step"], {n: v for n, v in row.items() if n != "step"})
        with on_disk(self._path):
            self._stream.flush()

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Show a step's scores as `val/NAME`; `evaluations.jsonl` will have them.

        Raises:
            StorageError: the disk is full, or fails.
        """
        self._show(step, {f"val/{name}": value for name, value in scores.items()})
        with on_disk(self._events_folder):
            self._events.flush()

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to TensorBoard and, where that is asked for, to wandb."""
        with on_disk(self._events_folder):
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.write(step, values)

    def _drop_after(self, step: int) -> None:
        there = storage.exists(str(self._path))
        text = storage.read_bytes(str(self._path)).decode(errors="replace") if there else ""
        kept = [line for line in text.splitlines() if _step_of(line) <= step]
        storage.put_bytes(str(self._path), "".join(f"{line}\n" for line in kept).encode())

    def _close_stream(self) -> None:
        with on_disk(self._path):
            self._stream.close()

    def _close_events(self) -> None:
        with on_disk(self._events_folder):
            self._events.close()


class NoLog:
    """The log of a process that writes none; rows are still computed, by all processes together."""

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Drop the rows."""
        deque(rows, maxlen=0)

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Drop the scores."""


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Name the file in errors of the disk; other errors, as of a dead loader process, pass."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


class _Row(TypedDict):
    step: Count


def _step_of(line: str) -> float:
    """Return a line's step; infinity if the line is cut short or damaged, so that it is dropped."""
    try:
        return parsed(line, _Row)["step"]
    except DocumentError:
        return float("inf")


@functools.cache
def _hush_event_threads() -> None:
    """Keep the thread that writes events from printing an error; the next write raises it."""
    otherwise = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        written_by = type(what.thread).__module__
        if not (issubclass(what.exc_type, OSError) and written_by == EVENT_THREADS):
            otherwise(what)

    threading.excepthook = hook
