"""What training reads from a run folder and writes into it, of all processes the first alone."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from milan_pipeline.checkpoint_loading import load_checkpoint
from milan_pipeline.checkpoint_writer import CheckpointWriter
from milan_pipeline.checkpoints import (
    checkpoint_folder,
    newest_checkpoint,
    take_snapshot,
)
from milan_pipeline.distributed import World
from milan_pipeline.ema import MovingAverage
from milan_pipeline.errors import DataError
from milan_pipeline.replicas import whole
from milan_pipeline.run_log import NoLog, RunLog
from milan_pipeline.run_state import RunState, write_state


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder, which every process reads and the first one writes; all make the same calls."""

    path: Path
    world: World

    def restore(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, average: MovingAverage | None
    ) -> int:
        """Load the newest whole checkpoint; return the steps it has seen, 0 without one.

        Raises:
            DataError: there are checkpoints, and all are torn.
        """
        found = newest_checkpoint(self.path) if self.world.leads else None
        # The first process chooses, so that all go on from the same one.
        step = int(self.world.most(found[0] if found else 0))
        if step:
            load_checkpoint(checkpoint_folder(self.path, step), model, optimiser, average)
        return step

    @contextlib.contextmanager
    def opened(self, first: int, total: int, *, keep: int) -> Iterator["OpenRun"]:
        """Write into the folder inside the block, which ends when everything is on the disk.

        Args:
            first: steps that are done.
            total: steps that there will be.
            keep: checkpoints to keep.
        """
        with (
            CheckpointWriter(self.path, keep=keep) as writer,
            contextlib.closing(
                RunLog(self.path, resume_step=first) if self.world.leads else NoLog()
            ) as log,
        ):
            run = OpenRun(folder=self, writer=writer, log=log, total=total)
            run.note("running", first)
            yield run
        self.world.wait_for_all()


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
        """Write down that training stops here, when its checkpoint is on the disk."""
        self.writer.wait()
        self.note("interrupted", step)
        self.folder.world.wait_for_all()  # a launcher may end those that are left after the first

    def last_good(self) -> str:
        """Name the newest whole checkpoint, in all processes alike."""
        self.writer.wait()
        world = self.folder.world
        found = newest_checkpoint(self.folder.path) if world.leads else None
        return str(world.gather(found[1] if found else "none")[0])

    def checkpoint(
        self,
        step: int,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: MovingAverage | None,
    ) -> None:
        """Begin to write a checkpoint; training may go on at once.

        Raises:
            DataError: a weight is not finite, since a gradient was not although the loss was.
            StorageError: the checkpoint before it could not be written.
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
