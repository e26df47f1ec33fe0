"""The run folder: every process reads it, and the first process writes into it.

While it trains, a run writes checkpoints, its state and its log.
"""

import contextlib
import dataclasses
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from milan_pipeline.cluster.world import World, whole
from milan_pipeline.errors import DataError, StorageError, reason_of
from milan_pipeline.provenance.run_state import RunState, write_state
from milan_pipeline.storage.locks import HELD, NO_LOCKS
from milan_pipeline.training.checkpoint_io import CheckpointWriter, load_checkpoint
from milan_pipeline.training.checkpoints import (
    checkpoint_folder,
    newest_checkpoint,
    prune_checkpoints,
    take_snapshot,
)
from milan_pipeline.training.optim import MovingAverage
from milan_pipeline.training.run_log import NoLog, RunLog, on_disk

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
            with on_disk(checkpoints):  # now, and not when hours of work are to be written
                checkpoints.mkdir(parents=True, exist_ok=True)
        with (
            CheckpointWriter(self.path, keep=keep) as writer,
            self._log(first, wandb) as log,
        ):
            run = OpenRun(folder=self, writer=writer, log=log, total=total)
            run.note("running", first)
            if first and self.world.leads:  # a part that ended early may have left some
                prune_checkpoints(self.path, first, keep=keep)
            yield run
        self.world.wait_for_all()

    def _log(
        self, first: int, wandb: str | None
    ) -> contextlib.AbstractContextManager["RunLog | NoLog"]:
        if not self.world.leads:
            return contextlib.nullcontext(NoLog())
        return RunLog(self.path, resume_step=first, wandb=wandb)


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


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Lock a run folder for this process; the system unlocks it when the process ends.

    Raises:
        StorageError: another process trains into it, or it cannot be written.
    """
    with on_disk(run):
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
