"""`milan-pipeline pretrain`: image shards + target shards -> a run. No teacher anywhere."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.interrupts import stop_request
from milan_pipeline.manifest import Manifest, load_manifest
from milan_pipeline.options import option, stage_command
from milan_pipeline.provenance import StageRecord, read_record

if TYPE_CHECKING:
    import torch

    from milan_pipeline.order import OrderConfig, StepClock
    from milan_pipeline.pairs import PairTable
    from milan_pipeline.stream import Batch, StreamConfig
    from milan_pipeline.student import Student
    from milan_pipeline.training import TrainingConfig

PUBLISHED_BATCH = 4096
WARMUP_SHARE = 0.1
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pretrain a vision transformer on stored targets, as MILAN does but without its teacher.

    Killed or stopped (SIGTERM, SIGUSR1), run the same command again: it goes on from the newest
    checkpoint and ends with the same weights.
    """

    images: str = option(help="Folder of image shards with manifest.json.", role="execution")
    targets: str = option(help="Folder of target shards with manifest.json.", role="execution")
    out: str = option(help="Run folder to write.", role="execution")
    student: str = option("vit_base_patch16_224", help="timm name of a plain ViT.")
    patch_size: int | None = option(None, help="Student's patch, in pixels; default: the name's.")
    width: int | None = option(None, help="Student's width; default: the name's.")
    depth: int | None = option(None, help="Student's blocks; default: the name's.")
    heads: int | None = option(None, help="Student's attention heads; default: the name's.")
    decoder_width: int = option(512, help="Decoder's width.")
    decoder_depth: int = option(8, help="Decoder's blocks.")
    decoder_heads: int = option(16, help="Decoder's attention heads.")
    mask_ratio: float = option(0.75, help="Share of the patches that is masked.")
    views: int | None = option(None, help="Views to use; default: all that are packed.")
    epochs: int = option(400, help="Passes over the images; sets the schedule.")
    warmup_epochs: float | None = option(None, help="Default: a tenth of the epochs.")
    batch_size: int | None = option(
        None, help="Pairs in a global batch; default: 4096, for small data less."
    )
    base_lr: float = option(1.5e-4, help="Learning rate for a batch of 256; scaled to the batch.")
    weight_decay: float = option(0.05, help="AdamW's weight decay.")
    seed: int = option(0, help="Seed of weights, order and masks.")
    lanes: int | None = option(None, help="Sequences an epoch is dealt into; default: up to 64.")
    shuffle_block: int = option(4096, help="Pairs of a lane that are shuffled together.")
    precision: str = option(
        "auto", help="Type of the student's arithmetic.", choices=("auto", "fp32", "bf16")
    )
    on_missing: str = option(
        "error", help="Images without targets or the reverse.", choices=("error", "skip")
    )
    max_steps: int | None = option(None, help="Stop after this many steps.", role="extent")
    micro_batch: int = option(256, help="Pairs in one forward pass.", role="execution")
    checkpoint_every: int = option(500, help="Steps between checkpoints.", role="execution")
    keep: int = option(2, help="Checkpoints to keep.", role="execution")
    log_every: int = option(10, help="Steps between looks at the loss.", role="execution")
    workers: int = option(2, help="Loader processes.", role="execution")
    device: str = option("auto", help="Where to train: auto, cpu, cuda.", role="execution")

    def __post_init__(self) -> None:
        at_least_one = {
            name: getattr(self, name)
            for name in (
                *("patch_size", "width", "depth", "heads", "decoder_width", "decoder_depth"),
                *("decoder_heads", "views", "epochs", "batch_size", "lanes", "shuffle_block"),
                *("max_steps", "micro_batch", "checkpoint_every", "keep", "log_every"),
            )
        }
        for name, value in at_least_one.items():
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {value} is below 1; give more")
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"--mask-ratio {self.mask_ratio} is not within 0 to 1; try 0.75")
        if self.workers < 0:
            raise ConfigError(f"--workers {self.workers} is below 0; give 0 or more")
        if self.base_lr < 0 or self.weight_decay < 0:
            raise ConfigError(
                f"--base-lr {self.base_lr} or --weight-decay {self.weight_decay} is below 0"
            )
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs < self.epochs:
            raise ConfigError(
                f"--warmup-epochs {self.warmup_epochs} is not below --epochs {self.epochs}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """A configuration with everything that depends on the data filled in."""

    config: Pretrain
    targets: Manifest
    pairs: "PairTable"
    order: "OrderConfig"
    clock: "StepClock"
    total_steps: int

    @property
    def run(self) -> Path:
        return Path(self.config.out)

    @property
    def grid(self) -> tuple[int, int]:
        height, width = self.targets.common["identity"]["teacher"]["grid"]
        return int(height), int(width)


def run(config: Pretrain) -> None:
    """Train to the last step and export the encoder."""
    from milan_pipeline.devices import pick_device
    from milan_pipeline.export import export_encoder
    from milan_pipeline.run_log import write_state
    from milan_pipeline.training import Trainer

    device = pick_device(config.device)
    config = _with_frozen_choices(config, device)
    plan = _plan(config)
    record = _record(plan)
    if record.previous_state() == "done" and _trained_steps(plan.run) >= plan.total_steps:
        click.echo(f"{config.out}: nothing to do, {plan.total_steps} steps are done")
        return
    record.begin()
    student, arguments = _student(plan)
    codec = _stream_config(plan).layout.codec
    trainer = Trainer(plan.run, student.to(device), codec, _training_config(plan), plan.clock)
    with stop_request() as stop:
        counts = trainer.train(lambda steps: _batches(plan, steps, device), stop)
    export_encoder(plan.run, student.encoder, arguments, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    write_state(plan.run, "done", step=plan.total_steps, total_steps=plan.total_steps)
    record.finish(counts | {"missing": plan.pairs.missing})
    click.echo(f"{config.out}: " + ", ".join(f"{value} {name}" for name, value in counts.items()))


def dry_run(config: Pretrain) -> None:
    """Say how long the run is and what it will read and write."""
    from milan_pipeline.devices import pick_device

    config = _with_frozen_choices(config, pick_device(config.device))
    plan = _plan(config)
    _record(plan).previous_state()
    student, _ = _student(plan)
    parameters = sum(parameter.numel() for parameter in student.parameters())
    pairs = int(plan.pairs.counts(0).sum())
    views = len(plan.pairs.views)
    click.echo(f"steps to do: {plan.total_steps - _trained_steps(plan.run)} of {plan.total_steps}")
    click.echo(f"pairs: {pairs} a view, views: {views}, left out: {plan.pairs.missing}")
    click.echo(f"batch: {plan.order.batch}, lanes: {plan.order.lanes}, parameters: {parameters}")
    click.echo(
        f"bytes to write: about {12 * parameters * (config.keep + 1)} (checkpoints), "
        f"free: {storage.free_bytes(config.out)}"
    )


def _with_frozen_choices(config: Pretrain, device: "torch.device") -> Pretrain:
    """Fill in what an earlier run into this folder chose from its data and machine."""
    previous = read_record(storage.join(config.out, "config.json")) or {"content": {}}
    frozen = {
        name: previous["content"][name]
        for name in ("views", "batch_size", "lanes", "precision", "warmup_epochs")
        if getattr(config, name) in (None, "auto") and name in previous["content"]
    }
    config = dataclasses.replace(config, **frozen)
    if config.precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
        config = dataclasses.replace(config, precision=precision)
    if config.warmup_epochs is None:
        config = dataclasses.replace(config, warmup_epochs=WARMUP_SHARE * config.epochs)
    return config


def _plan(config: Pretrain) -> _Plan:
    """Join the pairs and settle batch, lanes and steps.

    Raises:
        ConfigError: there are fewer pairs than a batch.
    """
    from milan_pipeline.order import OrderConfig, default_batch, default_lanes
    from milan_pipeline.pairs import join_pairs
    from milan_pipeline.stream import step_clock

    images = load_manifest(config.images, kind="images")
    targets = load_manifest(config.targets, kind="targets")
    packed = 1 + max((int(shard.details["view"]) for shard in targets.shards), default=-1)
    views = config.views or packed
    if views > packed:
        raise ConfigError(f"--views {views} is more than the {packed} that {config.targets} holds")
    skip = config.on_missing == "skip"
    pairs = join_pairs(images, targets, views=views, on_missing="skip" if skip else "error")
    least = min(int(pairs.counts(view).sum()) for view in range(views))
    batch = config.batch_size or default_batch(least, PUBLISHED_BATCH)
    lanes = config.lanes or default_lanes(batch)
    order = OrderConfig(seed=config.seed, batch=batch, lanes=lanes, block=config.shuffle_block)
    clock = step_clock(pairs, order)
    if not all(clock.steps):
        raise ConfigError(f"--batch-size {batch} is more than the {least} pairs of a view allow")
    total = clock.total(config.epochs)
    config = dataclasses.replace(config, views=views, batch_size=batch, lanes=lanes)
    return _Plan(
        config=config,
        targets=targets,
        pairs=pairs,
        order=order,
        clock=clock,
        total_steps=min(total, config.max_steps or total),
    )


def _record(plan: _Plan) -> StageRecord:
    """Describe the run: `config.json`, with what must not change between its parts."""
    return StageRecord(
        url=storage.join(plan.config.out, "config.json"),
        stage="pretrain",
        config=plan.config,
        inputs={
            "identity_hash": plan.targets.common["identity_hash"],
            "pairs": plan.pairs.fingerprint(),
        },
    )


def _trained_steps(run: Path) -> int:
    state = run / "state.json"
    return int(json.loads(state.read_text())["step"]) if state.exists() else 0


def _student(plan: _Plan) -> tuple["Student", dict[str, Any]]:
    """Build the student for the targets' grid, from the seed."""
    import torch

    from milan_pipeline.decoder import PromptingDecoder
    from milan_pipeline.student import Student, build_encoder, encoder_arguments

    config = plan.config
    sizes = {"width": config.width, "depth": config.depth, "heads": config.heads}
    patch = _patch_size(plan)
    height, width = plan.grid
    if height != width:
        raise MismatchError(f"{config.targets} has a {height}x{width} grid; a square one is needed")
    torch.manual_seed(config.seed)
    shape = {"image_size": height * patch, "patch_size": config.patch_size, **sizes}
    encoder = build_encoder(config.student, **shape)
    decoder = PromptingDecoder(
        encoder.embed_dim,
        plan.grid,
        int(plan.targets.common["identity"]["teacher"]["width"]),
        width=config.decoder_width,
        depth=config.decoder_depth,
        heads=config.decoder_heads,
    )
    return Student(encoder, decoder), encoder_arguments(config.student, **shape)


def _patch_size(plan: _Plan) -> int:
    from milan_pipeline.student import patch_size_of

    return plan.config.patch_size or patch_size_of(plan.config.student)


def _stream_config(plan: _Plan) -> "StreamConfig":
    from milan_pipeline.masking import kept_count
    from milan_pipeline.stream import StreamConfig
    from milan_pipeline.target_records import layout_of

    layout = layout_of(plan.targets.common["identity"])
    patch = _patch_size(plan)
    return StreamConfig(
        image_size=plan.grid[0] * patch,
        patch_size=patch,
        kept=kept_count(layout.patches, plan.config.mask_ratio),
        mask_seed=plan.config.seed,
        layout=layout,
    )


def _batches(plan: _Plan, steps: range, device: "torch.device") -> "Iterator[Batch]":
    from milan_pipeline.stream import batches

    return batches(
        plan.pairs,
        plan.order,
        _stream_config(plan),
        steps=steps,
        workers=plan.config.workers,
        pin_memory=device.type == "cuda",
    )


def _training_config(plan: _Plan) -> "TrainingConfig":
    from milan_pipeline.training import TrainingConfig

    config = plan.config
    return TrainingConfig(
        batch=plan.order.batch,
        micro_batch=config.micro_batch,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs or 0.0,
        base_lr=config.base_lr,
        weight_decay=config.weight_decay,
        total_steps=plan.total_steps,
        bf16=config.precision == "bf16",
        checkpoint_every=config.checkpoint_every,
        keep=config.keep,
        log_every=config.log_every,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


command = stage_command("pretrain", Pretrain, run=run, dry_run=dry_run)
