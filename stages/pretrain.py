"""`milan-pipeline pretrain`: image shards + target shards -> a run. No teacher anywhere."""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError
from milan_pipeline.interrupts import exiting_at_once, stop_request
from milan_pipeline.launcher import is_launched, launch
from milan_pipeline.options import option, require_least, stage_command

if TYPE_CHECKING:
    from milan_pipeline.shard_cache import CacheConfig


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
    student: str = option("vit_base_patch16_224", help="timm name of a ViT with a class token.")
    image_size: int | None = option(
        None,
        help="Side of the student's view, in pixels; default: the name's, or with --patch-size "
        "what fits the targets' grid.",
        least=1,
    )
    patch_size: int | None = option(
        None, help="Student's patch, in pixels; default: the name's.", least=1
    )
    width: int | None = option(None, help="Student's width; default: the name's.", least=1)
    depth: int | None = option(None, help="Student's blocks; default: the name's.", least=1)
    heads: int | None = option(
        None, help="Student's attention heads; default: the name's.", least=1
    )
    decoder: str = option(
        "prompting",
        help="Mask tokens prompted by visible ones (MILAN), self-attention over all (MAE, arXiv "
        "2111.06377), or a linear head after an encoder that mask tokens enter (SimMIM, arXiv "
        "2111.09886; EVA, 2211.07636).",
        choices=("prompting", "mae", "linear"),
    )
    decoder_width: int = option(512, help="Decoder's width; a linear one has none.", least=1)
    decoder_depth: int = option(8, help="Decoder's blocks; a linear one has none.", least=1)
    decoder_heads: int = option(
        16, help="Decoder's attention heads; a linear one has none.", least=1
    )
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
        help="Tokens with a loss: all (MILAN), masked patches (MAE, arXiv 2111.06377), or CLS and "
        "visible patches (MaskAlign, arXiv 2211.08887).",
        choices=("all", "masked", "visible"),
    )
    masking: str = option(
        "semantic",
        help="Keep patches by CLIP's attention to them (MILAN), all alike (MAE, arXiv 2111.06377), "
        "or mask them in blocks (BEiT, arXiv 2106.08254).",
        choices=("semantic", "random", "block"),
    )
    mask_ratio: float = option(0.75, help="Share of the patches that is masked.")
    views: int | None = option(None, help="Views to use; default: all that are packed.", least=1)
    epochs: int = option(400, help="Passes over the images; sets the schedule.", least=1)
    warmup_epochs: float | None = option(
        None, help="Epochs in which the learning rate rises; default: a tenth of --epochs."
    )
    batch_size: int | None = option(
        None,
        help="Pairs in a global batch; default: 4096, for small data less.",
        least=1,
    )
    base_lr: float = option(
        1.5e-4, help="Learning rate for a batch of 256; scaled to the batch.", least=0
    )
    weight_decay: float = option(0.05, help="AdamW's weight decay.", least=0)
    clip_grad: float | None = option(
        None, help="Largest norm of the gradients (arXiv 1211.5063); default: not clipped."
    )
    ema_decay: float | None = option(
        None,
        help="Decay of a moving average of the weights, kept and exported beside them (arXiv "
        "1703.01780); default: none is kept.",
    )
    seed: int = option(0, help="Seed of weights, order and masks.")
    lanes: int | None = option(
        None, help="Sequences an epoch is dealt into; default: up to 64.", least=1
    )
    shuffle_block: int = option(4096, help="Pairs of a lane that are shuffled together.", least=1)
    precision: str = option(
        "auto",
        help="Type of the student's arithmetic; auto: bf16 on a GPU, else fp32.",
        choices=("auto", "fp32", "bf16"),
    )
    on_missing: str = option(
        "error", help="Images without targets or the reverse.", choices=("error", "skip")
    )
    max_steps: int | None = option(None, help="Stop after this many steps.", role="extent", least=1)
    micro_batch: int = option(
        256,
        help="Pairs in one forward pass of one process; gradients of a batch are added up.",
        role="execution",
        least=1,
    )
    compile: bool = option(False, help="Compile the student's blocks.", role="execution")
    gradient_checkpointing: bool = option(
        False, help="Compute blocks again in the backward pass, to save memory.", role="execution"
    )
    fsdp: bool = option(
        False, help="Shard the student over the processes (FSDP2).", role="execution"
    )
    checkpoint_every: int = option(
        500, help="Steps between checkpoints.", role="execution", least=1
    )
    keep: int = option(2, help="Checkpoints to keep.", role="execution", least=1)
    log_every: int = option(10, help="Steps between looks at the loss.", role="execution", least=1)
    workers: int = option(2, help="Loader processes of each process.", role="execution", least=0)
    cache: str | None = option(
        None,
        help="Local folder that keeps what is read from the shards; default: none.",
        role="execution",
    )
    cache_gb: float = option(50.0, help="Gigabytes kept at most, with --cache.", role="execution")
    processes: int | None = option(
        None,
        help="Processes to start on this machine, where torchrun does not; default: one.",
        role="execution",
        least=1,
    )
    device: str = option("auto", help="Where to train: auto, cpu, cuda.", role="execution")

    def __post_init__(self) -> None:
        require_least(self)
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"--mask-ratio {self.mask_ratio} is not within 0 to 1; try 0.75")
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


def count_processes(config: Pretrain) -> int:
    """Return how many processes train together.

    Raises:
        ConfigError: torchrun has started them, and `--processes` would start others.
    """
    if not is_launched():
        return config.processes or 1
    if config.processes is not None:
        raise ConfigError(
            f"--processes {config.processes} cannot be given to what torchrun started, which "
            "settles how many there are; leave it out"
        )
    return int(os.environ["WORLD_SIZE"])


def run(config: Pretrain) -> None:
    """Train to the last step and export the encoder."""
    count_processes(config)
    if config.processes is not None:
        # To those that it starts, the option would say to start others.
        alone = dataclasses.replace(config, processes=None)
        sys.exit(launch("pretrain", alone, config.processes))
    unbegun = f"nothing was done in {config.out}; run the same command to begin or go on"
    with stop_request(then_ignore=is_launched()) as stop, contextlib.ExitStack() as preparing:
        preparing.enter_context(exiting_at_once(unbegun))
        from milan_pipeline.devices import pick_device
        from milan_pipeline.distributed import joined_world, local_device
        from stages.pretrain_plan import plan, train

        device = local_device(pick_device(config.device))
        with joined_world(device) as world:
            planned = plan(config, device)
            said = train(planned, device, world, stop, prepared=preparing.close)
    if said:
        click.echo(said)


def dry_run(config: Pretrain) -> None:
    """Say how long the run is and what it will read and write."""
    from milan_pipeline.devices import pick_device
    from milan_pipeline.order import lanes_of
    from stages.pretrain_plan import plan

    processes = count_processes(config)
    planned = plan(config, pick_device(config.device))
    lanes_of(0, processes, range(planned.data.order.lanes))
    for line in planned.summary():
        click.echo(line)


command = stage_command("pretrain", Pretrain, run=run, dry_run=dry_run)
