"""What `pretrain` is about to do, settled before anything is written, and the doing of it."""

import dataclasses
import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from milan_pipeline import storage
from milan_pipeline.checkpoints import require_recorded
from milan_pipeline.distributed import World
from milan_pipeline.examples import Batch
from milan_pipeline.export import export_encoder
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.launcher import is_launched
from milan_pipeline.messages import say, say_nothing_to_do, warn
from milan_pipeline.meter import in_words
from milan_pipeline.options import fields_from
from milan_pipeline.order import lanes_of
from milan_pipeline.pairs import OnMissing
from milan_pipeline.pixel_data import PixelData, open_pixel_data
from milan_pipeline.pixel_statistics import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.pretraining import RunData, StudentSpec, build_student, open_run_data
from milan_pipeline.pretraining_task import Pretraining, PretrainingConfig
from milan_pipeline.provenance import StageRecord
from milan_pipeline.replicas import require_processes
from milan_pipeline.run_weights import initial_weights, initialise
from milan_pipeline.runs import trained_encoder
from milan_pipeline.shard_cache import CacheConfig
from milan_pipeline.stream import batches
from milan_pipeline.student import Student
from milan_pipeline.training import Trainer, TrainingConfig
from milan_pipeline.training_choices import ledger_of, training_precision, with_frozen_choices
from milan_pipeline.training_plan import say_sizes, say_space, say_steps_to_do
from milan_pipeline.training_run import has_ended, train_into
from stages.pretrain import Pretrain

WARMUP_SHARE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run with nothing left open.

    Attributes:
        config: what was left to the data, the machine or an earlier run is filled in.
        data: what the run learns from.
        record: `config.json`.
    """

    config: Pretrain
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
    def training(self) -> TrainingConfig:
        """What the loop needs to know; most options are its fields' namesakes."""
        total = self.data.clock.total(self.config.epochs)
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


def plan(config: Pretrain, device: torch.device) -> Plan:
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


def train(
    config: Pretrain,
    device: torch.device,
    world: World,
    stop: StopRequest,
    prepared: Callable[[], None],
) -> None:
    """Train to the last step and export the encoder, together with the other processes.

    Args:
        config: what to train.
        device: of this process.
        world: all processes.
        stop: asked after each step.
        prepared: called when all are ready, before the first of them writes anything.
    """
    planned = plan(config, device)
    config, data, total = planned.config, planned.data, planned.training.total_steps
    if planned.is_done:
        if world.leads:
            say_nothing_to_do(config.out, f"{total} steps are done")
        return
    lanes_of(world.rank, world.size, range(data.order.lanes))  # or say which sizes fit
    student, to_examples = planned.built[0].to(device), planned.to_examples
    cache = config.cache_config()
    if cache is not None and world.leads:
        _warn_of_small_cache(cache, data)

    ledger = None  # an image that has targets could be decoded once: it must have changed
    if isinstance(data, PixelData):
        ledger = ledger_of(config, "train", int(data.samples.counts(0).sum()))

    def batches_from(steps: range) -> Generator[Batch, None, None]:
        return batches(
            data.samples,
            data.order,
            to_examples,
            steps=steps,
            workers=config.workers,
            rank=world.rank,
            world=world.size,
            pin_memory=device.type == "cuda",
            cache=cache,
            ledger=ledger,
        )

    def finish(counts: dict[str, Any]) -> dict[str, Any]:
        _export(planned)
        unreadable = 0 if ledger is None else ledger.count
        return counts | {"missing": data.missing, "unreadable": unreadable}

    task = Pretraining(student, data.targets(), planned.recipe)
    trainer = Trainer(config.folder, task, planned.training, data.clock, world=world, ledger=ledger)
    counts = train_into(
        config.folder,
        trainer,
        batches_from,
        stop,
        world=world,
        record=planned.record,
        prepared=prepared,
        finish=finish,
    )
    if world.leads:
        say(f"{config.out}: {in_words(counts)}", out=config.out, **counts)


def _warn_of_small_cache(cache: CacheConfig, data: RunData | PixelData) -> None:
    """Say so where pieces will be evicted before the shuffle comes back to them."""
    if cache.max_bytes < data.shuffled_bytes:
        warn(
            f"--cache-gb {cache.max_bytes / 1e9:g} is less than the "
            f"{data.shuffled_bytes / 1e9:.3g} GB that are shuffled together ({data.order.lanes} "
            f"lanes of --shuffle-block {data.order.block}), so that shards are read again and "
            "again; give more"
        )


def _export(planned: Plan) -> None:
    """Write the encoder and, where there is one, its moving average."""
    folder, (_, arguments) = planned.config.folder, planned.built
    averaged_too = planned.config.ema_decay is not None
    for name in ("encoder", "encoder-ema") if averaged_too else ("encoder",):
        encoder = trained_encoder(folder, arguments, averaged=name == "encoder-ema")
        export_encoder(folder, encoder, arguments, mean=IMAGENET_MEAN, std=IMAGENET_STD, name=name)


def _settled(config: Pretrain, device: torch.device) -> tuple[Pretrain, RunData | PixelData]:
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


def _open_data(config: Pretrain) -> RunData | PixelData:
    order: dict[str, Any] = {
        "views": config.views,
        "batch": config.batch_size,
        "lanes": config.lanes,
        "block": config.shuffle_block,
        "seed": config.seed,
    }
    if config.targets is None:
        return open_pixel_data(config.images, min_scale=config.min_scale, **order)
    on_missing: OnMissing = "skip" if config.on_missing == "skip" else "error"
    return open_run_data(config.images, config.targets, on_missing=on_missing, **order)


def _record(config: Pretrain, data: RunData | PixelData) -> StageRecord:
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
