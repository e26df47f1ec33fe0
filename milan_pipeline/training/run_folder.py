"""The run folder: every process reads it, and the first process writes into it.

While it trains, a run writes checkpoints, its state, `log.jsonl` and TensorBoard events.
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from milan_pipeline import storage
from milan_pipeline.cluster.world import World, whole
from milan_pipeline.core.schema import Count, DocumentError, parsed
from milan_pipeline.errors import DataError, StorageError, reason_of
from milan_pipeline.provenance.run_state import RunState, write_state
from milan_pipeline.storage.locks import HELD, NO_LOCKS
from milan_pipeline.storage.space import write_error
from milan_pipeline.training.checkpoint_io import CheckpointWriter, load_checkpoint
from milan_pipeline.training.checkpoints import (
    checkpoint_folder,
    newest_checkpoint,
    prune_checkpoints,
    take_snapshot,
)
from milan_pipeline.training.optim import MovingAverage
from milan_pipeline.training.wandb_log import WandbLog

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder; all processes make the same calls, and the first process writes."""

    path: Path
    world: World

    def restore(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, average: MovingAverage | None
    ) -> int:
        """Load the newest whole checkpoint; return its step, or 0 if there is none.

        Raises:
            DataError: there are checkpoints, but all are torn.
        """
        newest = newest_checkpoint(self.path) if self.world.leads else None
        # The first process chooses, so that all resume from the same checkpoint.
        step = int(self.world.most(newest[0] if newest else 0))
        if step:
            load_checkpoint(checkpoint_folder(self.path, step), model, optimiser, average)
        return step

    @contextlib.contextmanager
    def opened(
        self, first: int, total: int, *, keep: int, wandb: str | None = None
    ) -> Iterator["OpenRun"]:
        """Open the folder for writing; the block ends when everything is on the disk.

        Args:
            first: number of steps that are done.
            total: number of steps at the end.
            keep: checkpoints to keep.
            wandb: project that gets the log, too; see `RunLog`.
        """
        if self.world.leads:
            checkpoints = self.path / "checkpoints"
            with _on_disk(checkpoints):  # now, and not when hours of work are to be written
                checkpoints.mkdir(parents=True, exist_ok=True)
        with (
            CheckpointWriter(self.path, keep=keep) as writer,
            contextlib.closing(
                RunLog(self.path, resume_step=first, wandb=wandb) if self.world.leads else NoLog()
            ) as log,
        ):
            run = OpenRun(folder=self, writer=writer, log=log, total=total)
            run.note("running", first)
            if first and self.world.leads:  # a part that ended early may have left some
                prune_checkpoints(self.path, first, keep=keep)
            yield run
        self.world.wait_for_all()


LOG_NAME = "log.jsonl"


class RunLog:
    """Log each step once; on resume, lines of steps that will be repeated are dropped."""

    def __init__(self, run: Path, *, resume_step: int, wandb: str | None = None) -> None:
        """Open the log.

        Args:
            run: the run folder.
            resume_step: the last step whose line is kept.
            wandb: project of Weights & Biases that gets the log, too.
        """
        self._wandb = None if wandb is None else WandbLog(run, wandb)
        self._path, self._events_folder = run / LOG_NAME, run / "tensorboard"
        there = storage.exists(str(self._path))
        text = storage.read_bytes(str(self._path)).decode(errors="replace") if there else ""
        kept = [line for line in text.splitlines() if _step_of(line) <= resume_step]
        storage.put_bytes(str(self._path), "".join(f"{line}\n" for line in kept).encode())
        _hush_event_threads()
        with _on_disk(self._path):
            self._stream = self._path.open("a")
        with _on_disk(self._events_folder):
            self._events = SummaryWriter(str(self._events_folder), purge_step=resume_step + 1)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append steps; each row has `step` (from 1) and numbers.

        Raises:
            StorageError: the disk is full, or fails.
        """
        for row in rows:
            with _on_disk(self._path):
                self._stream.write(json.dumps(row) + "\n")
            with _on_disk(self._events_folder):
                self._show(row["step"], {n: v for n, v in row.items() if n != "step"})
        with _on_disk(self._path):
            self._stream.flush()

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Show a step's scores as `val/NAME`; `evaluations.jsonl` has them already.

        Raises:
            StorageError: the disk is full, or fails.
        """
        with _on_disk(self._events_folder):
            self._show(step, {f"val/{name}": value for name, value in scores.items()})

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to TensorBoard and, where that is asked for, to wandb."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.write(step, values)

    def close(self) -> None:
        """Flush and close both logs.

        Raises:
            StorageError: the disk is full, or fails.
        """
        try:
            with _on_disk(self._path):
                self._stream.close()
        finally:
            with _on_disk(self._events_folder):
                self._events.close()
            if self._wandb is not None:
                self._wandb.close()


class NoLog:
    """The log of a process that writes none; rows are still computed, by all processes together."""

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Drop the rows."""
        deque(rows, maxlen=0)

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Drop the scores."""

    def close(self) -> None:
        """Do nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run folder while it is written."""

    folder: RunFolder
    writer: CheckpointWriter
    log: RunLog | NoLog
    total: int

    def note(self, state: RunState, step: int) -> None:
        """Write `state.json`."""
        if self.folder.world.leads:
            write_state(self.folder.path, state, step=step, total_steps=self.total)

    def interrupt(self, step: int) -> None:
        """Write that training stops here, once its checkpoint is on the disk."""
        self.writer.wait()
        self.note("interrupted", step)
        self.folder.world.wait_for_all()  # a launcher may end the others once the first has ended

    def last_good(self) -> str:
        """Name the newest whole checkpoint; the same in all processes."""
        self.writer.wait()
        world = self.folder.world
        newest = newest_checkpoint(self.folder.path) if world.leads else None
        return str(world.gather(newest[1] if newest else "none")[0])

    def checkpoint(
        self,
        step: int,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: MovingAverage | None,
    ) -> None:
        """Begin to write a checkpoint; training may go on at once.

        Raises:
            DataError: a weight is not finite: a gradient was not, although the loss was.
            StorageError: the previous checkpoint could not be written.
        """
        world = self.folder.world
        norm = whole(nn.utils.get_total_norm(list(model.parameters())))
        if world.most(0 if norm.isfinite() else 1):
            raise DataError(
                f"a weight is not finite after step {step}; the last good checkpoint is "
                f"{self.last_good()}; start another --out with a lower --base-lr or --clip-grad 1"
            )
        snapshot = take_snapshot(model, optimiser, average, keeping=world.leads)
        if world.leads:
            self.writer.save(step, snapshot)


EVENT_THREADS = "tensorboard.summary.writer.event_file_writer"
"""The module of their class."""


class _Row(TypedDict):
    step: Count


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """Name the file in errors of the disk; other errors, as of a dead loader process, pass."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


@functools.cache
def _hush_event_threads() -> None:
    """Keep the thread that writes events from printing an error; the next write raises it."""
    otherwise = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        written_by = type(what.thread).__module__
        if not (issubclass(what.exc_type, OSError) and written_by == EVENT_THREADS):
            otherwise(what)

    threading.excepthook = hook


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Lock a run folder for this process; the system unlocks it when the process ends.

    Raises:
        StorageError: another process trains into it, or it cannot be written.
    """
    with _on_disk(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / ".lock").open("w")
    with lock as stream:
        try:
            # Not flock, which forked loader processes would share: they outlive a killed run by
            # seconds, and the run could not be started again at once.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                raise StorageError(
                    f"another process trains into {run}; wait for it or give another --out"
                ) from error
            if error.errno not in NO_LOCKS:
                raise StorageError(
                    f"{run} cannot be locked ({reason_of(error)}); give another --out"
                ) from error
            logger.warning(
                "%s lies on a file system without locks (%s), so nothing keeps a second process "
                "from training into it",
                run,
                reason_of(error),
            )
        yield


def _step_of(line: str) -> float:
    """Return a line's step; infinity if the line is cut short or damaged, so that it is dropped."""
    try:
        return parsed(line, _Row)["step"]
    except DocumentError:
        return float("inf")
