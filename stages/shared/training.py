"""What a training stage settles before it trains, says in a dry run, and does with its plan."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic

import torch
from torch import nn

from milan_pipeline import storage
from milan_pipeline.cli.options import fields_from
from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import bytes_text, say, say_nothing_to_do, warn
from milan_pipeline.core.counting import such
from milan_pipeline.core.devices import has_bfloat16
from milan_pipeline.data.batching import BatchT
from milan_pipeline.data.order import OrderChoice, OrderConfig, StepClock, lanes_of
from milan_pipeline.data.stream import batches, step_clock
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.evaluate.scores_file import known_metrics
from milan_pipeline.provenance.identity import require_stage
from milan_pipeline.provenance.record import StageRecord, read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME, trained_steps
from milan_pipeline.shards.random_access import SampleTable
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.own_folder import require_own_folder
from milan_pipeline.stages.shared.schedule import require_same_epochs
from milan_pipeline.stages.shared.training_notes import tell_of_left_out, tell_of_loaders
from milan_pipeline.stages.shared.training_options import ConfigT, Process, TrainingOptions
from milan_pipeline.training.checkpoints import newest_checkpoint
from milan_pipeline.training.ended import has_ended, require_a_beginning, warn_of_lost_best
from milan_pipeline.training.evaluations import Evaluations, Validator
from milan_pipeline.training.meter import in_words
from milan_pipeline.training.trainer import (
    Task,
    Trainer,
    TrainingConfig,
    train_into,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPlan(abc.ABC, Generic[ConfigT]):
    """A run with nothing left open.

    Attributes:
        config: what was left to the data, the machine or an earlier run is filled in.
        train: the samples to train on.
        order: the order in which they come.
        record: `config.json`.
    """

    config: ConfigT
    train: SampleTable
    order: OrderConfig
    record: StageRecord

    @property
    @abc.abstractmethod
    def schedule_steps(self) -> int:
        """Length of the schedule."""

    @property
    @abc.abstractmethod
    def exports(self) -> tuple[str, ...]:
        """The names of the weights that the run writes at its end."""

    @property
    def evaluations(self) -> Evaluations | None:
        """The scores that choose the best weights; None if the run keeps none."""
        return None

    @abc.abstractmethod
    def describe_data(self) -> None:
        """Say how many samples there are."""

    @abc.abstractmethod
    def exported_bytes(self, model: nn.Module) -> dict[str, int]:
        """Return how many bytes the run will export, by the name of what it exports."""

    @functools.cached_property
    def clock(self) -> StepClock:
        """Tells the epoch of a step."""
        return step_clock(self.train, self.order)

    @property
    def left_out(self) -> int:
        """How many samples an epoch leaves out (of targets, one of the first view)."""
        return int(self.train.counts(0).sum()) - self.clock.steps[0] * self.order.batch

    @functools.cached_property
    def training(self) -> TrainingConfig:
        """What the loop needs to know; most options are its fields' namesakes."""
        steps = self.schedule_steps
        return fields_from(
            TrainingConfig,
            self.config,
            batch=self.order.batch,
            total_steps=min(steps, self.config.max_steps or steps),
            title=self.record.stage,
        )

    @property
    def is_done(self) -> bool:
        """Whether an earlier run into this folder did all of it; see `has_ended`."""
        folder, total = self.config.folder, self.training.total_steps
        return has_ended(self.record, folder, total, self.exports, self.evaluations)

    def has_work(self, world: World) -> bool:
        """Tell whether there are steps to do; say so where there are none.

        Raises:
            ConfigError: the processes cannot share the lanes equally.
            MismatchError: the folder holds another run.
            MissingDataError: a run that is done goes on, and has no checkpoint.
        """
        if not self.is_done:
            lanes_of(world.rank, world.size, range(self.order.lanes))
            require_a_beginning(self.config.folder, leads=world.leads)
            return True
        if world.leads:
            steps, known = self.training.total_steps, known_metrics(self.config.out)
            say_nothing_to_do(self.config.out, such(steps, "steps", "done"), **known)
            if self.evaluations is not None:
                folder, last = self.config.folder, self.exports[0]
                warn_of_lost_best(folder, self.evaluations, last, trained_steps(folder))
        return False

    def describe(self, model: nn.Module, processes: int) -> None:
        """Say how long the run is and what it will read and write.

        Raises:
            ConfigError, MismatchError, MissingDataError: the run would be refused.
        """
        if not self.is_done:
            require_a_beginning(self.config.folder)
        config, order, total = self.config, self.order, self.training.total_steps
        lanes_of(0, processes, range(order.lanes))
        newest = newest_checkpoint(config.folder)
        left = max(0, total - (newest[0] if newest else 0))
        say(f"steps to do: {left} of {total}", steps_to_do=left, steps=total)
        self.describe_data()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        say(
            f"batch: {order.batch} images, {order.per_lane} from each of {order.lanes} lanes, the "
            "equal parts of an epoch that loader processes share",
            batch=order.batch, lanes=order.lanes,
        )  # fmt: skip
        left_out = self.left_out
        say(f"images that an epoch leaves out: {left_out}", left_out_of_an_epoch=left_out)
        say(
            f"parameters: {parameters}, of which trained: {trained}",
            parameters=parameters, trained=trained,
        )  # fmt: skip
        # float32: all weights, AdamW's two moments of those that are trained and, with a moving
        # average, a copy of all weights.
        copies = 1 if config.ema_decay is None else 2
        checkpoint = 4 * (copies * parameters + 2 * trained)
        sizes = {"checkpoints": checkpoint * (config.keep + 1)} | self.exported_bytes(model)
        parts = " and ".join(f"{bytes_text(size)} of {name}" for name, size in sizes.items())
        say_bytes_to_write(config.out, f"about {parts}", sizes)


def train_as_planned(
    planned: TrainingPlan[Any],
    process: Process,
    trainer: Trainer[BatchT],
    to_examples: Callable[[Iterable[dict[str, Any]]], Iterator[BatchT]],
    *,
    began: Callable[[], None] = lambda: None,
    finish: Callable[[dict[str, Any]], dict[str, Any]],
    validator: Validator | None = None,
) -> None:
    """Train to the last step, together with the other processes, and say what was done.

    Args:
        planned: the run.
        process: which of the processes this is.
        trainer: see `trainer_of`.
        to_examples: see `stream.batches`.
        began: see `trainer.train_into`.
        finish: likewise.
        validator: see `Trainer.train`.
    """
    config, world = planned.config, process.world
    if world.leads:
        if not any(map(trainer.rate, range(1, planned.schedule_steps + 1))):
            warn(
                "the learning rate of every step is 0, so nothing is learnt; give a --base-lr "
                "above 0, more steps, or no warm-up"
            )
        tell_of_left_out(planned.order.batch, planned.left_out)
        tell_of_loaders(config, planned.order, world.size)
    counts = train_into(
        trainer,
        lambda steps: batches(
            planned.train,
            planned.order,
            to_examples,
            steps=steps,
            workers=config.loaders,
            world=world,
            pin_memory=process.device.type == "cuda",
            cache=config.cache_config(),
            ledger=trainer.ledger,
        ),
        process.stop,
        record=planned.record,
        prepared=process.prepared,
        began=began,
        finish=finish,
        validator=validator,
    )
    if world.leads:
        say(f"{config.out}: {in_words(counts)}", out=config.out, **counts)


def trainer_of(
    planned: TrainingPlan[Any], task: Task[BatchT], world: World, ledger: RunLedger | None
) -> Trainer[BatchT]:
    """Return what trains a task as planned.

    Args:
        planned: the run.
        task: what is trained.
        world: the processes that train it.
        ledger: see `stream.batches`.
    """
    config, clock = planned.training, planned.clock
    return Trainer(planned.config.folder, task, config, clock, world=world, ledger=ledger)


def stage_record(
    stage: str, config: TrainingOptions, *, extent: Mapping[str, Any] | None = None, **inputs: Any
) -> StageRecord:
    """Return the record of a run, `config.json`.

    Args:
        stage: the command.
        config: its options.
        extent: inputs that may change between parts of the run.
        inputs: inputs that must not.
    """
    require_own_folder(config.out, "run")
    url = storage.join(config.out, CONFIG_NAME)
    return StageRecord(url=url, stage=stage, config=config, inputs=inputs, extent=extent)


def with_frozen_choices(stage: str, config: ConfigT, *names: str) -> ConfigT:
    """Fill in what an earlier run into this folder chose where the options leave it open.

    Args:
        stage: the command.
        config: with None or "auto" where a choice is open.
        names: of the options that may be open.

    Raises:
        MismatchError: it is of another command, or has a schedule of another length.
    """
    previous = read_record(storage.join(config.out, CONFIG_NAME)) or {"content": {}}
    require_stage(previous, stage, what=config.out)
    require_same_epochs(config.out, getattr(config, "epochs", None), previous)
    frozen: dict[str, Any] = {
        name: previous["content"][name]
        for name in names
        if getattr(config, name) in (None, "auto") and name in previous["content"]
    }
    return dataclasses.replace(config, **frozen)


def training_precision(precision: str, device: torch.device) -> str:
    """Return the precision to train in; "auto" is bf16 on a GPU that has it, else fp32."""
    fast = device.type == "cuda" and has_bfloat16(device)
    if precision == "bf16" and device.type == "cuda" and not fast:
        warn(
            "--precision bf16 is slow on this GPU, which has no instructions for it, and may lack "
            "convolutions; --precision fp32 is faster there"
        )
    return precision if precision != "auto" else "bf16" if fast else "fp32"


def order_choice(config: TrainingOptions) -> OrderChoice:
    """Return what the options say of the order of samples."""
    return OrderChoice(
        batch=config.batch_size,
        lanes=config.lanes,
        block=config.shuffle_block,
        seed=config.seed,
        processes=config.count_processes(),
    )


def ledger_of(config: TrainingOptions, what: str, images: int) -> RunLedger:
    """Return where a run notes which of its images cannot be decoded; see `RunLedger`."""
    return RunLedger(config.folder, what, images=images, fraction=config.max_bad_fraction)
