"""`milan-pipeline pretrain`: image shards + target shards -> a run. No teacher anywhere."""

import dataclasses
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError
from milan_pipeline.interrupts import StopRequest, stop_request
from milan_pipeline.launcher import is_launched, launch
from milan_pipeline.options import option, stage_command
from milan_pipeline.provenance import StageRecord, read_record

if TYPE_CHECKING:
    import torch

    from milan_pipeline.distributed import World
    from milan_pipeline.examples import Batch
    from milan_pipeline.pretraining import RunData
    from milan_pipeline.shard_cache import CacheConfig
    from milan_pipeline.student import Student
    from milan_pipeline.training import TrainingConfig

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
    init: str | None = option(
        None, help="Run whose newest weights to begin from; default: random.", role="execution"
    )
    student: str = option("vit_base_patch16_224", help="timm name of a ViT.")
    image_size: int | None = option(
        None,
        help="Side of the student's view, in pixels; default: the name's, or with --patch-size "
        "what fits the targets' grid.",
    )
    patch_size: int | None = option(None, help="Student's patch, in pixels; default: the name's.")
    width: int | None = option(None, help="Student's width; default: the name's.")
    depth: int | None = option(None, help="Student's blocks; default: the name's.")
    heads: int | None = option(None, help="Student's attention heads; default: the name's.")
    decoder: str = option(
        "prompting",
        help="Mask tokens prompted by visible ones (MILAN), self-attention over all (MAE), or a "
        "linear head after an encoder that mask tokens enter (SimMIM, EVA).",
        choices=("prompting", "mae", "linear"),
    )
    decoder_width: int = option(512, help="Decoder's width; a linear one has none.")
    decoder_depth: int = option(8, help="Decoder's blocks; a linear one has none.")
    decoder_heads: int = option(16, help="Decoder's attention heads; a linear one has none.")
    loss: str = option(
        "cosine",
        help="2 - 2 cos (MILAN), or smooth L1 of beta 2 from the prediction as it is to the "
        "normalised target (feature distillation, arXiv 2205.14141).",
        choices=("cosine", "smooth-l1"),
    )
    target_norm: str = option(
        "l2",
        help="Targets of length 1 (MILAN), or layer-normed (arXiv 2205.14141, 2210.10615).",
        choices=("l2", "layer"),
    )
    supervise: str = option(
        "all",
        help="Tokens with a loss: all (MILAN), masked patches (MAE), or CLS and visible patches "
        "(MaskAlign, arXiv 2211.08887).",
        choices=("all", "masked", "visible"),
    )
    masking: str = option(
        "semantic",
        help="Keep patches that CLIP attends to more often (MILAN), any alike (MAE), or mask "
        "blocks (BEiT, arXiv 2106.08254).",
        choices=("semantic", "random", "block"),
    )
    mask_ratio: float = option(0.75, help="Share of the patches that is masked.")
    views: int | None = option(None, help="Views to use; default: all that are packed.")
    epochs: int = option(400, help="Passes over the images; sets the schedule.")
    warmup_epochs: float | None = option(None, help="Default: a tenth of the epochs.")
    batch_size: int | None = option(
        None, help="Pairs in a global batch; default: 4096, for small data less."
    )
    base_lr: float = option(1.5e-4, help="Learning rate for a batch of 256; scaled to the batch.")
    weight_decay: float = option(0.05, help="AdamW's weight decay.")
    clip_grad: float | None = option(
        None, help="Largest norm of the gradients (arXiv 1211.5063); default: not clipped."
    )
    ema_decay: float | None = option(
        None, help="Also keep and export a moving average of the weights, as of arXiv 1703.01780."
    )
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
    micro_batch: int = option(
        256, help="Pairs in one forward pass of one process.", role="execution"
    )
    compile: bool = option(False, help="Compile the student's blocks.", role="execution")
    gradient_checkpointing: bool = option(
        False, help="Compute blocks again in the backward pass, to save memory.", role="execution"
    )
    fsdp: bool = option(
        False, help="Shard the student over torchrun's processes (FSDP2).", role="execution"
    )
    checkpoint_every: int = option(500, help="Steps between checkpoints.", role="execution")
    keep: int = option(2, help="Checkpoints to keep.", role="execution")
    log_every: int = option(10, help="Steps between looks at the loss.", role="execution")
    workers: int = option(2, help="Loader processes.", role="execution")
    cache: str | None = option(
        None, help="Local folder that keeps what is read from the shards.", role="execution"
    )
    cache_gb: float = option(50.0, help="Gigabytes that --cache may hold.", role="execution")
    processes: int | None = option(
        None, help="Processes to start on this machine, where torchrun does not.", role="execution"
    )
    device: str = option("auto", help="Where to train: auto, cpu, cuda.", role="execution")

    def __post_init__(self) -> None:
        for name in (
            *("image_size", "patch_size", "width", "depth", "heads", "decoder_width"),
            *("decoder_depth", "decoder_heads", "views", "epochs", "batch_size", "lanes"),
            *("shuffle_block", "max_steps", "micro_batch", "checkpoint_every", "keep"),
            *("log_every", "processes"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {value} is below 1; give more")
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"--mask-ratio {self.mask_ratio} is not within 0 to 1; try 0.75")
        if self.workers < 0:
            raise ConfigError(f"--workers {self.workers} is below 0; give 0 or more")
        if not (self.base_lr >= 0 and self.weight_decay >= 0):  # NaN is neither
            raise ConfigError(
                f"--base-lr {self.base_lr} or --weight-decay {self.weight_decay} is below 0; give "
                "0 or more"
            )
        if self.clip_grad is not None and not self.clip_grad > 0:
            raise ConfigError(f"--clip-grad {self.clip_grad} is not above 0; try 1")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ConfigError(f"--ema-decay {self.ema_decay} is not within 0 to 1; try 0.9999")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs < self.epochs:
            raise ConfigError(
                f"--warmup-epochs {self.warmup_epochs} is not within 0 and --epochs {self.epochs}; "
                "give less"
            )
        if self.cache is not None:
            self.cache_config()  # to refuse what the run would refuse
        if storage.local_path(self.out) is None:
            raise ConfigError(f"--out {self.out} is no local folder; give one")

    def cache_config(self) -> "CacheConfig | None":
        """Return where shards are cached, if anywhere.

        Raises:
            ConfigError: it is no local folder, or too small.
        """
        from milan_pipeline.shard_cache import CacheConfig

        if self.cache is None:
            return None
        folder = storage.local_path(self.cache)
        if folder is None:
            raise ConfigError(f"--cache {self.cache} is no local folder; give one")
        if not 0 < self.cache_gb < float("inf"):
            raise ConfigError(f"--cache-gb {self.cache_gb} is no size; give gigabytes above 0")
        return CacheConfig(folder=folder, max_bytes=int(self.cache_gb * 1e9))

    @property
    def folder(self) -> Path:
        """The run folder."""
        return storage.local_path(self.out) or Path(self.out)


def run(config: Pretrain) -> None:
    """Train to the last step and export the encoder."""
    if config.processes is not None and not is_launched():
        sys.exit(launch("pretrain", config, config.processes))
    with stop_request(then_ignore=is_launched()) as stop:
        from milan_pipeline.devices import pick_device
        from milan_pipeline.distributed import joined_world, local_device

        device = local_device(pick_device(config.device))
        with joined_world(device) as world:
            _run(config, stop, device, world)


def _run(config: Pretrain, stop: StopRequest, device: "torch.device", world: "World") -> None:
    from milan_pipeline.export import export_encoder
    from milan_pipeline.meter import in_words
    from milan_pipeline.order import lanes_of
    from milan_pipeline.run_log import run_lock, trained_steps, write_state
    from milan_pipeline.runs import trained_encoder
    from milan_pipeline.stream import batches
    from milan_pipeline.training import Trainer

    config, data = _settled(config, device)
    training = _training_config(config, data)
    record, folder, total = _record(config, data), config.folder, training.total_steps
    if record.previous_state() == "done" and trained_steps(folder) >= total:
        if world.leads:
            click.echo(f"{config.out}: nothing to do, {total} steps are done")
        return
    lanes_of(world.rank, world.size, range(data.order.lanes))  # or say which sizes fit
    student, arguments = _student(config, data)
    examples = data.examples(student, mask_ratio=config.mask_ratio, masking=config.masking)

    def batches_from(steps: range) -> "Generator[Batch, None, None]":
        return batches(
            data.pairs,
            data.order,
            examples,
            steps=steps,
            workers=config.workers,
            rank=world.rank,
            world=world.size,
            pin_memory=device.type == "cuda",
            cache=config.cache_config(),
        )

    codec, clock = data.layout.codec, data.clock
    trainer = Trainer(folder, student.to(device), codec, training, clock, world=world)
    world.wait_for_all()  # until all have read what an earlier run left
    if not world.leads:
        trainer.train(batches_from, stop)
        return
    with run_lock(folder):
        # Only now, when nothing can be wrong with the options any more, are they the run's own.
        record.begin()
        counts = trainer.train(batches_from, stop)
        files = {"encoder": False} | ({} if config.ema_decay is None else {"encoder-ema": True})
        for name, averaged in files.items():
            encoder = trained_encoder(folder, arguments, averaged=averaged)
            export_encoder(
                folder, encoder, arguments, mean=IMAGENET_MEAN, std=IMAGENET_STD, name=name
            )
        write_state(folder, "done", step=counts["steps"], total_steps=counts["steps"])
        record.finish(counts | {"missing": data.pairs.missing})
    click.echo(f"{config.out}: {in_words(counts)}")


def dry_run(config: Pretrain) -> None:
    """Say how long the run is and what it will read and write."""
    from milan_pipeline.checkpoints import newest_checkpoint
    from milan_pipeline.devices import pick_device

    config, data = _settled(config, pick_device(config.device))
    _record(config, data).previous_state()
    student, _ = _student(config, data)
    data.examples(
        student, mask_ratio=config.mask_ratio, masking=config.masking
    )  # to refuse what the run would refuse
    total = _training_config(config, data).total_steps
    newest = newest_checkpoint(config.folder)
    parameters = sum(parameter.numel() for parameter in student.parameters())
    pairs = int(data.pairs.counts(0).sum())
    click.echo(f"steps to do: {max(0, total - (newest[0] if newest else 0))} of {total}")
    click.echo(f"pairs: {pairs} a view, views: {config.views}, left out: {data.pairs.missing}")
    click.echo(f"batch: {data.order.batch}, lanes: {data.order.lanes}, parameters: {parameters}")
    click.echo(
        f"bytes to write: about {12 * parameters * (config.keep + 1)} (checkpoints), "
        f"free: {storage.free_bytes(config.out)}"
    )


def _settled(config: Pretrain, device: "torch.device") -> tuple[Pretrain, "RunData"]:
    """Join the pairs; fill in what was left to the data, the machine or an earlier run."""
    from milan_pipeline.pretraining import open_run_data

    config = _with_frozen_choices(config)
    data = open_run_data(
        config.images,
        config.targets,
        views=config.views,
        on_missing="skip" if config.on_missing == "skip" else "error",
        batch=config.batch_size,
        lanes=config.lanes,
        block=config.shuffle_block,
        seed=config.seed,
    )
    precision, warmup = config.precision, config.warmup_epochs
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    settled = dataclasses.replace(
        config,
        views=len(data.pairs.views),
        batch_size=data.order.batch,
        lanes=data.order.lanes,
        precision=precision,
        warmup_epochs=WARMUP_SHARE * config.epochs if warmup is None else warmup,
    )
    return settled, data


def _with_frozen_choices(config: Pretrain) -> Pretrain:
    """Fill in what an earlier run into this folder chose from its data and machine."""
    previous = read_record(storage.join(config.out, "config.json")) or {"content": {}}
    frozen = {
        name: previous["content"][name]
        for name in ("views", "batch_size", "lanes", "precision", "warmup_epochs")
        if getattr(config, name) in (None, "auto") and name in previous["content"]
    }
    return dataclasses.replace(config, **frozen)


def _record(config: Pretrain, data: "RunData") -> StageRecord:
    """Describe the run: `config.json`, with what must not change between its parts."""
    from milan_pipeline.run_weights import initial_weights

    begun = {} if config.init is None else {"init": initial_weights(Path(config.init)).sha256}
    return StageRecord(
        url=storage.join(config.out, "config.json"),
        stage="pretrain",
        config=config,
        inputs={
            "identity_hash": data.identity_hash,
            "identity": data.identity,
            "pairs": data.pairs.fingerprint(),
            **begun,
        },
    )


def _student(config: Pretrain, data: "RunData") -> tuple["Student", dict[str, Any]]:
    from milan_pipeline.pretraining import StudentSpec, build_student
    from milan_pipeline.run_weights import initialise

    spec = StudentSpec.from_content(dataclasses.asdict(config))
    student, arguments = build_student(
        spec, grid=data.grid, target_width=data.layout.width, seed=config.seed
    )
    if config.init is not None:
        initialise(student, Path(config.init), decoder_heads=config.decoder_heads)
    return student, arguments


def _training_config(config: Pretrain, data: "RunData") -> "TrainingConfig":
    from milan_pipeline.training import TrainingConfig

    total = data.clock.total(config.epochs)
    return TrainingConfig(
        batch=data.order.batch,
        micro_batch=config.micro_batch,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs or 0.0,
        base_lr=config.base_lr,
        weight_decay=config.weight_decay,
        total_steps=min(total, config.max_steps or total),
        bf16=config.precision == "bf16",
        checkpoint_every=config.checkpoint_every,
        keep=config.keep,
        log_every=config.log_every,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        loss=config.loss,
        target_norm=config.target_norm,
        clip_grad=config.clip_grad,
        ema_decay=config.ema_decay,
        fsdp=config.fsdp,
        compile=config.compile,
        gradient_checkpointing=config.gradient_checkpointing,
    )


command = stage_command("pretrain", Pretrain, run=run, dry_run=dry_run)
