"""Options that every training stage has, and how such a stage starts its processes.

Imports no torch before a stop signal can end the process at once.
"""

import contextlib
import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from milan_pipeline import storage
from milan_pipeline.cli.commands import imported
from milan_pipeline.cli.options import AUTO, count, option, require_least
from milan_pipeline.cluster.launch import is_launched, launch, launched_size
from milan_pipeline.core.cores import computing, own_cores
from milan_pipeline.core.interrupts import StopRequest, exiting_at_once, stop_request
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common

if TYPE_CHECKING:
    import torch

    from milan_pipeline.cluster.world import World
    from milan_pipeline.shards.cache import CacheConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a run of any task is computed, logged and kept."""

    out: str = option(help="Run folder to write.", role="execution", group="Output")
    batch_size: int | None = count(
        None,
        "samples",
        group="Schedule",
        help="Samples in a batch of all processes; default: the published number, or less for "
        "small data.",
    )
    clip_grad: float | None = option(
        None,
        help="Largest norm of the gradients (arXiv 1211.5063); default: no clipping.",
        group="Schedule",
        unit="norm",
    )
    ema_decay: float | None = option(
        None,
        help="Decay of a moving average of the weights (arXiv 1703.01780), which is kept and "
        "exported beside them. It is at most 1 - t^(-2/3) at step t, as in timm's ModelEmaV3; "
        "default: no average.",
        group="Schedule",
        unit="share",
    )
    seed: int = option(
        0,
        help="Seed of the first weights, of the order and of all random draws.",
        group="Schedule",
        unit="number",
    )
    lanes: int | None = count(
        None,
        "lanes",
        group="Schedule",
        help="Number of lanes: equal sequences into which an epoch is divided. Loader processes of "
        "a process share its lanes equally; default: up to 64, or 8 for each process if there are "
        "more than 8.",
    )
    shuffle_block: int = count(
        4096,
        "samples",
        group="Schedule",
        help="Number of samples of a lane that are shuffled together.",
    )
    precision: str = option(
        "auto",
        help="Number type of the arithmetic; auto: bf16 on a GPU that has it, else fp32.",
        choices=("auto", "fp32", "bf16"),
        group="This machine",
    )
    max_steps: int | None = count(
        None,
        "steps",
        group="Schedule",
        role="extent",
        help="Stop after this many steps; default: at the end of the schedule.",
    )
    micro_batch: int = count(
        256,
        "samples",
        group="This machine",
        role="execution",
        help="Samples in one forward pass of one process. Gradients of a batch are added up. A "
        "smaller number takes less memory.",
    )
    compile: bool = option(
        False, help="Compile the model's blocks with torch.", role="execution", group="This machine"
    )
    gradient_checkpointing: bool = option(
        False,
        help="Save memory: compute the blocks again in the backward pass.",
        role="execution",
        group="This machine",
    )
    checkpoint_every: int = count(
        500,
        "steps",
        group="Checkpoints and log",
        role="execution",
        help="Steps between checkpoints.",
    )
    keep: int = count(
        2,
        "checkpoints",
        group="Checkpoints and log",
        role="execution",
        help="Number of checkpoints to keep.",
    )
    log_every: int = count(
        10,
        "steps",
        group="Checkpoints and log",
        role="execution",
        help="Steps between rows in the log.",
    )
    wandb: str | None = option(
        None,
        help="Project of Weights & Biases that gets the log, beside TensorBoard's files in --out. "
        "Without a network set WANDB_MODE=offline; default: none.",
        role="execution",
        group="Checkpoints and log",
    )
    workers: int | Literal["auto"] = common.workers(
        "Loader processes of each training process; auto: one for each core that it may use.",
        unit="processes",
    )
    max_bad_fraction: float = common.max_bad_fraction(more=" Other images take their place.")
    cache: str | None = option(
        None,
        help="Local folder that keeps data read from remote shards; default: none.",
        role="execution",
        group="This machine",
    )
    cache_gb: float = option(
        50.0,
        help="Largest size of --cache, in gigabytes.",
        role="execution",
        group="This machine",
        unit="GB",
    )
    processes: int | None = count(
        None,
        "processes",
        group="Several machines",
        role="execution",
        help="Number of training processes to start on this machine, if torchrun does not start "
        "them; default: one.",
    )
    device: str = common.device("Where to train")
    threads: int | Literal["auto"] = common.threads()

    def __post_init__(self) -> None:
        require_least(self)
        if self.clip_grad is not None and not self.clip_grad > 0:
            raise ConfigError(
                f"--clip-grad {self.clip_grad} is not above 0; leave it out, or try 1"
            )
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ConfigError(f"--ema-decay {self.ema_decay} is not within 0 to 1; try 0.9999")
        if self.cache is not None:
            self.cache_config()  # to refuse what the run would refuse
        if self.wandb is not None and importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                f"--wandb {self.wandb} needs wandb, which is not installed; run "
                "`pip install 'milan-pipeline[wandb]'`"
            )
        if storage.local_path(self.out) is None:
            raise ConfigError(f"--out {self.out} is no local folder; give one")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return storage.local_path(self.out) or Path(self.out)

    @property
    def loaders(self) -> int:
        """How many loader processes, or threads that decode what is scored, this process wants."""
        return own_cores(self.processes or 1) if self.workers == AUTO else self.workers

    def cache_config(self) -> "CacheConfig | None":
        """Return where shards are cached, if anywhere.

        Raises:
            ConfigError: it is no local folder, or too small.
        """
        from milan_pipeline.shards.cache import CacheConfig

        if self.cache is None:
            return None
        folder = storage.local_path(self.cache)
        if folder is None:
            raise ConfigError(f"--cache {self.cache} is no local folder; give one")
        if not 0 < self.cache_gb < float("inf"):
            raise ConfigError(f"--cache-gb {self.cache_gb} is no size; give gigabytes above 0")
        return CacheConfig(folder=folder, max_bytes=int(self.cache_gb * 1e9))

    def count_processes(self) -> int:
        """Return how many processes train together.

        Raises:
            ConfigError: torchrun has started them, and `--processes` would start others; or its
                variables do not fit together.
        """
        launched = launched_size()
        if launched == 1:
            return self.processes or 1
        if self.processes is not None:
            raise ConfigError(
                f"--processes {self.processes} cannot be given where RANK and WORLD_SIZE say that "
                f"this is one of {launched} processes; leave it out, or unset both"
            )
        return launched


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """What one of the processes that train together is given.

    Attributes:
        device: of this process.
        world: all processes.
        stop: asked after each step.
        prepared: called when all are ready, before the first of them writes anything.
    """

    device: "torch.device"
    world: "World"
    stop: StopRequest
    prepared: Callable[[], None]


ConfigT = TypeVar("ConfigT", bound=TrainingOptions)


def run_training(stage: str, config: TrainingOptions, train: str) -> None:
    """Run a training stage in this process, or start those that `--processes` asks for.

    Args:
        stage: the command.
        config: its configuration.
        train: MODULE:FUNCTION that trains; it takes the configuration and a `Process`.
    """
    config.count_processes()
    if config.processes is not None:
        # To those that it starts, the option would say to start others.
        alone = dataclasses.replace(config, processes=None)
        sys.exit(launch(stage, alone, config.processes))
    unbegun = f"nothing was done in {config.out}; run the same command to begin or go on"
    with stop_request(then_ignore=is_launched()) as stop, contextlib.ExitStack() as preparing:
        preparing.enter_context(exiting_at_once(unbegun))
        from milan_pipeline.cluster.world import joined_world, local_device
        from milan_pipeline.core.devices import pick_device

        function, device = imported(train), local_device(pick_device(config.device))
        with joined_world(device) as world:
            process = Process(device=device, world=world, stop=stop, prepared=preparing.close)
            with computing(config):
                function(config, process)
