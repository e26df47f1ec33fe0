"""What `pretrain` is about to do, settled before anything is written, and the doing of it."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from milan_pipeline import storage
from milan_pipeline.cli.options import fields_from
from milan_pipeline.cluster.launch import is_launched
from milan_pipeline.cluster.world import require_processes
from milan_pipeline.core.console import say
from milan_pipeline.data.order import StepClock
from milan_pipeline.data.pairs import OnMissing
from milan_pipeline.data.stream import step_clock
from milan_pipeline.models.build import StudentSpec, build_student
from milan_pipeline.models.student import Student
from milan_pipeline.pretrain.examples import Batch
from milan_pipeline.pretrain.feature_data import RunData, open_run_data
from milan_pipeline.pretrain.pixel_data import PixelData, open_pixel_data
from milan_pipeline.pretrain.task import PretrainingConfig
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.training.checkpoints import require_recorded
from milan_pipeline.training.trainer import TrainingConfig, has_ended
from milan_pipeline.weights.run_weights import initial_weights, initialise
from stages.shared.training import (
    order_choice,
    say_sizes,
    say_space,
    say_steps_to_do,
    training_precision,
    with_frozen_choices,
)

if TYPE_CHECKING:
    from stages.pretrain.command import Pretrain


WARMUP_SHARE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run with nothing left open.

    Attributes:
        config: what was left to the data, the machine or an earlier run is filled in.
        data: what the run learns from.
        record: `config.json`.
    """

    config: "Pretrain"
    data: RunData | PixelData
    record: StageRecord

    @functools.cached_property
    def built(self) -> tuple[Student, dict[str, Any]]:
        """The student, with the weights that the run begins from, and what timm makes it of.

        Raises:
            ConfigError: it does not fit the targets.
            MissingDataError, MismatchError: there is no run at `--init`, or it does not fit.
        """
        config, data = self.config, self.data
        spec = StudentSpec.from_content(dataclasses.asdict(config))
        grid, width = data.target_shape(spec)
        student, arguments = build_student(spec, grid=grid, target_width=width, seed=config.seed)
        if config.init is not None:
            initialise(student, Path(config.init), decoder_heads=config.decoder_heads)
        return student, arguments

    @functools.cached_property
    def to_examples(self) -> Callable[[Iterable[dict[str, Any]]], Iterator[Batch]]:
        """How views are cut and masked.

        Raises:
            ConfigError: the ratio keeps or masks nothing.
        """
        student, _ = self.built
        return self.data.to_examples(
            student, mask_ratio=self.config.mask_ratio, masking=self.config.choices()["masking"]
        )

    @functools.cached_property
    def clock(self) -> StepClock:
        """Which epoch a step is of."""
        return step_clock(self.data.samples, self.data.order)

    @functools.cached_property
    def training(self) -> TrainingConfig:
        """What the loop needs to know; most options are its fields' namesakes."""
        total = self.clock.total(self.config.epochs)
        steps = min(total, self.config.max_steps or total)
        return fields_from(
            TrainingConfig, self.config, batch=self.data.order.batch, total_steps=steps
        )

    @property
    def recipe(self) -> PretrainingConfig:
        """What is learnt, and how."""
        bf16 = self.config.precision == "bf16"
        return fields_from(PretrainingConfig, self.config, batch=self.data.order.batch, bf16=bf16)

    @property
    def is_done(self) -> bool:
        """Whether an earlier run into this folder did all of it.

        Raises:
            MismatchError: it was another run.
        """
        return has_ended(self.record, self.config.folder, self.training.total_steps)

    def describe(self) -> None:
        """Say how long the run is and what it will read and write."""
        _ = self.is_done, self.to_examples  # to refuse what the run would refuse
        student, _ = self.built
        parameters = sum(parameter.numel() for parameter in student.parameters())
        order, count = self.data.order, int(self.data.samples.counts(0).sum())
        say_steps_to_do(self.config.folder, self.training.total_steps)
        say(
            f"pairs: {count} a view, views: {self.config.views or 'a new one each epoch'}, "
            f"left out: {self.data.missing}",
            pairs=count, views=self.config.views, left_out=self.data.missing,
        )  # fmt: skip
        say_sizes(order.batch, order.lanes, parameters)
        # float32: weights and AdamW's two moments; with a moving average, each one's average too.
        averages = self.config.ema_decay is not None
        checkpoints = (16 if averages else 12) * parameters * (self.config.keep + 1)
        encoder = sum(parameter.numel() for parameter in student.encoder.parameters())
        exported = (8 if averages else 4) * encoder
        say_space(self.config.out, checkpoints=checkpoints, encoder=exported)


def plan(config: "Pretrain", device: torch.device) -> Plan:
    """Join the pairs and settle what is open; nothing is written, and no student built yet.

    Raises:
        ConfigError: options do not fit each other or the data.
        MissingDataError, MismatchError: images, targets and `--init` do not belong together, or
            `--out` has checkpoints of no known run.
    """
    require_processes(fsdp=config.fsdp, started=is_launched() or config.processes is not None)
    require_recorded(config.folder)
    config, data = _settled(config, device)
    return Plan(config=config, data=data, record=_record(config, data))


def _settled(config: "Pretrain", device: torch.device) -> "tuple[Pretrain, RunData | PixelData]":
    """Join the pairs; fill in what was left to the data, the machine or an earlier run."""
    config = with_frozen_choices(
        config, "views", "batch_size", "lanes", "precision", "warmup_epochs"
    )
    data = _open_data(config)
    warmup = config.warmup_epochs
    chosen: dict[str, Any] = dict(config.choices())
    settled = dataclasses.replace(
        config,
        **chosen,
        views=config.views if isinstance(data, PixelData) else data.samples.cycle,
        batch_size=data.order.batch,
        lanes=data.order.lanes,
        precision=training_precision(config.precision, device),
        warmup_epochs=WARMUP_SHARE * config.epochs if warmup is None else warmup,
    )
    return settled, data


def _open_data(config: "Pretrain") -> RunData | PixelData:
    images, views, order = config.images, config.views, order_choice(config)
    if config.targets is None:
        return open_pixel_data(images, views=views, min_scale=config.min_scale, order=order)
    on_missing: OnMissing = "skip" if config.on_missing == "skip" else "error"
    return open_run_data(images, config.targets, views=views, on_missing=on_missing, order=order)


def _record(config: "Pretrain", data: RunData | PixelData) -> StageRecord:
    """Describe the run: `config.json`, with what must not change between its parts."""
    begun = {} if config.init is None else {"init": initial_weights(Path(config.init)).sha256}
    return StageRecord(
        url=storage.join(config.out, "config.json"),
        stage="pretrain",
        config=config,
        inputs={
            **data.inputs,
            **begun,
        },
    )
