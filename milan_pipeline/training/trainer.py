"""The training loop of any task: batches -> loss -> step, resumed exactly where it stopped.

`train_into` trains into a run folder: it holds the folder's lock, and writes record and state.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Generic, Protocol

import torch
from torch import nn

from milan_pipeline.cluster.world import World, accumulating, replicate, settle
from milan_pipeline.core.device_copies import DeviceCopies, on_device
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.loader_deaths import READING, explained_worker_deaths
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.data.batching import BatchT, BatchT_contra
from milan_pipeline.data.order import StepClock
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.errors import InterruptedRunError
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import Reporter, reporting
from milan_pipeline.provenance.run_state import write_state
from milan_pipeline.training.compiling import compile_blocks, explained_compiler
from milan_pipeline.training.evaluations import Validator
from milan_pipeline.training.meter import Losses, Meter, PartedLoss, named, trained
from milan_pipeline.training.optim import MovingAverage, clip_gradients, set_learning_rate
from milan_pipeline.training.run_folder import OpenRun, RunFolder, run_lock


class Task(Protocol[BatchT_contra]):
    """What is trained: a model, its optimiser, and a loss.

    Attributes:
        model: on its device; its state is what checkpoints keep.
    """

    model: nn.Module

    def optimiser(self) -> torch.optim.Optimizer:
        """Return a new optimiser of the model; groups may scale the rate by their `lr_scale`."""

    def rate(self, epoch: float) -> float:
        """Return the learning rate after a number of epochs, with fractions."""

    def loss(
        self, replica: nn.Module, data: BatchT_contra, part: slice, step: int
    ) -> torch.Tensor | PartedLoss:
        """Return the mean loss of a part of a batch, on the device.

        Args:
            replica: called in place of the model, since it exchanges gradients with the others.
            data: this process's part of a global batch.
            part: the samples of it to use.
            step: from 1; all random draws are a function of it.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What the loop needs to know.

    Attributes:
        batch: samples in a global batch.
        micro_batch: samples in one forward pass of one process; gradients are accumulated.
        total_steps: the step to stop after.
        checkpoint_every: steps between checkpoints.
        keep: checkpoints to keep.
        log_every: steps between rows in the log; writing them waits for the device.
        clip_grad: largest norm of the gradients; None leaves them as they are.
        ema_decay: of a moving average of the weights; None keeps none.
        fsdp: shard the model over the processes instead of copying it.
        compile: compile the model's blocks.
        title: beside the progress bar.
        wandb: project of Weights & Biases that gets the log, too.
    """

    batch: int
    micro_batch: int
    total_steps: int
    checkpoint_every: int
    keep: int
    log_every: int
    clip_grad: float | None = None
    ema_decay: float | None = None
    fsdp: bool = False
    compile: bool = False
    title: str = "pretrain"
    wandb: str | None = None


class Trainer(Generic[BatchT]):
    """One run: `train` resumes from the newest checkpoint, and trains to the last step.

    Every process of the world has one and calls the same methods. The first process writes into the
    folder; before each checkpoint it writes the ledger, if there is one.

    Attributes:
        run: the run folder.
        world: the processes that train together.
        ledger: the images that could not be decoded, where some may be unreadable.
        average: the moving average of the weights, where there is one.
    """

    def __init__(
        self,
        run: Path,
        task: Task[BatchT],
        config: TrainingConfig,
        clock: StepClock,
        *,
        world: World | None = None,
        ledger: RunLedger | None = None,
    ) -> None:
        self.run = run
        self.world = world or World()
        self._folder = RunFolder(run, self.world)
        self._task = task
        self._config = config
        self._clock = clock
        self.ledger = ledger
        self._device = next(task.model.parameters()).device
        self._replica = replicate(task.model, self.world, fsdp=config.fsdp)
        if config.compile:
            compile_blocks(task.model)
        self._optimiser = task.optimiser()
        decay = config.ema_decay
        self.average = None if decay is None else MovingAverage(task.model, decay)

    def train(
        self,
        batches_from: Callable[[range], Generator[BatchT, None, None]],
        stop: StopRequest,
        *,
        validator: Validator | None = None,
        reporter: Reporter | None = None,
    ) -> dict[str, Any]:
        """Train to the last step; a run that is past it stays as it is.

        Args:
            batches_from: opens the stream of this process's parts of a range of steps.
            stop: asked after each step.
            validator: scores the model after steps where that is due. The step's checkpoint is
                written first: a run that ends meanwhile begins with the scoring when it goes on.
            reporter: told of each step.

        Returns:
            Counts for the record: steps, images, images a second, share of waiting.

        Raises:
            InterruptedRunError: a stop signal came to any process; a checkpoint was written.
            DataError: the loss or a weight is not finite, or too many images are unreadable.
            StorageError: a checkpoint cannot be written.
        """
        first = self._folder.restore(self._task.model, self._optimiser, self.average)
        total, batch = max(first, self._config.total_steps), self._config.batch
        meter, first_part = Meter(batch, self.world), slice(0, self._config.micro_batch)
        if reporter is not None:
            reporter.expect(total, first)
        bar = progress_bar(
            self._config.title, total=total * batch, initial=first * batch, shown=self.world.leads
        )
        with (
            explained_worker_deaths(READING),
            explained_compiler(),
            self._folder.opened(
                first, total, keep=self._config.keep, wandb=self._config.wandb
            ) as folder,
            contextlib.closing(batches_from(range(first, total))) as host_batches,
            bar,
        ):
            if validator is not None:
                validator.resume(first)
            if validator is not None and validator.is_due(first):
                self._validate(first, folder, validator, stop)
            batches = on_device(host_batches, DeviceCopies(self._device))
            for step, data in enumerate(meter.waiting(batches), start=first + 1):
                if step == first + 1:
                    loss = functools.partial(self._task.loss, self._replica, data, first_part, step)
                    settle(self._replica, trained(loss))
                meter.add(step, *self._step(step, data), self.rate(step), data.keys)
                bar.update(batch)
                if reporter is not None:
                    reporter.step(batch)
                asked = stop.agreed(self.world.most)
                stopping = asked.signal_name is not None and step < total
                scoring = validator is not None and validator.is_due(step)
                self._keep(step, folder, meter, now=stopping or scoring or step == total)
                if stopping:
                    folder.interrupt(step)
                    asked.raise_if_asked(f"{self.run} has a checkpoint of step {step}")
                if validator is not None and scoring:
                    self._validate(step, folder, validator, stop)
        return {"steps": total, "steps_done_now": total - first} | meter.summary()

    def _validate(
        self, step: int, folder: OpenRun, validator: Validator, stop: StopRequest
    ) -> None:
        """Score the model, whose checkpoint is written; note where that was interrupted."""
        try:
            validator.validate(step, stop, folder.log.write_scores)
        except InterruptedRunError:
            folder.interrupt(step)
            raise

    def _keep(self, step: int, folder: OpenRun, meter: Meter, *, now: bool) -> None:
        """Write the log and then a checkpoint, where they are due or where `now` is set."""
        checkpoint = now or step % self._config.checkpoint_every == 0
        if checkpoint or step % self._config.log_every == 0:
            folder.log.write(meter.rows(self._clock, folder.last_good))
        if checkpoint and self.ledger is not None:
            self.ledger.settle(self.world)
        if checkpoint:
            folder.checkpoint(step, self._task.model, self._optimiser, self.average)

    def rate(self, step: int) -> float:
        """Return the learning rate at the beginning of a step, counted from 1."""
        return self._task.rate(self._clock.fractional_epoch(step - 1))

    def _step(self, step: int, data: BatchT) -> tuple[Losses, torch.Tensor | None]:
        """Take one optimiser step.

        Returns:
            The mean losses of this process's part and, where they are clipped, the norm of the
            gradients; both still on the device.
        """
        set_learning_rate(self._optimiser, self.rate(step))
        self._optimiser.zero_grad(set_to_none=True)
        sums: Losses = {}
        pairs = len(data.keys)
        for start in range(0, pairs, self._config.micro_batch):
            part = slice(start, min(start + self._config.micro_batch, pairs))
            share = (part.stop - part.start) / pairs
            with accumulating(self._replica, last=part.stop == pairs):
                losses = named(self._task.loss(self._replica, data, part, step))
                shares = {name: loss * share for name, loss in losses.items()}
                shares["loss"].backward()  # type: ignore[no-untyped-call]
            for name, value in shares.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        clip = self._config.clip_grad
        norm = None if clip is None else clip_gradients(self._task.model, clip)
        self._optimiser.step()
        if self.average is not None:
            self.average.update(step)
        return sums, norm


def train_into(
    trainer: Trainer[BatchT],
    batches_from: Callable[[range], Generator[BatchT, None, None]],
    stop: StopRequest,
    *,
    record: StageRecord,
    prepared: Callable[[], None],
    began: Callable[[], None] = lambda: None,
    finish: Callable[[dict[str, Any]], dict[str, Any]],
    validator: Validator | None = None,
) -> dict[str, Any]:
    """Train to the last step together with the other processes, and mark the run as done.

    Args:
        trainer: of the run.
        batches_from: opens the stream of this process's parts of a range of steps.
        stop: asked after each step.
        record: `config.json`.
        prepared: called when all are ready, before the first of them writes anything.
        began: called in the first process alone, once the folder is its own and has the record.
        finish: given the trainer's counts, writes the results; returns the counts for the
            record. Called in the first process alone.
        validator: see `Trainer.train`.

    Returns:
        The counts of the record; in processes other than the first, the trainer's own.
    """
    trainer.world.wait_for_all()  # until all have read what an earlier run left
    prepared()
    if not trainer.world.leads:
        return trainer.train(batches_from, stop, validator=validator)
    with run_lock(trainer.run), reporting(str(trainer.run), record.stage, stop) as reporter:
        # The options become the run's own only now, when all of them are known to be right.
        record.begin()
        began()
        counts = trainer.train(batches_from, stop, validator=validator, reporter=reporter)
        recorded = finish(counts)
        write_state(trainer.run, "done", step=counts["steps"], total_steps=counts["steps"])
        record.finish(recorded)
    return recorded
