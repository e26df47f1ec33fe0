"""Start a training stage: its processes, and what ends them in order.

Imports no torch before a stop signal can end the process at once.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from milan_pipeline.interrupts import StopRequest, exiting_at_once, stop_request
from milan_pipeline.launcher import is_launched, launch
from milan_pipeline.training_options import TrainingOptions

if TYPE_CHECKING:
    import torch

    from milan_pipeline.distributed import World

ConfigT = TypeVar("ConfigT", bound=TrainingOptions)
Train = Callable[[ConfigT, "torch.device", "World", StopRequest, Callable[[], None]], None]


def run_training(stage: str, config: ConfigT, load: Callable[[], Train[ConfigT]]) -> None:
    """Run a training stage in this process, or start those that `--processes` asks for.

    Args:
        stage: the command.
        config: its configuration.
        load: imports and returns the function that trains: given the configuration, the device, all
            processes, the request to stop, and what to call before anything is written.
    """
    config.count_processes()
    if config.processes is not None:
        # To those that it starts, the option would say to start others.
        alone = dataclasses.replace(config, processes=None)
        sys.exit(launch(stage, alone, config.processes))
    unbegun = f"nothing was done in {config.out}; run the same command to begin or go on"
    with stop_request(then_ignore=is_launched()) as stop, contextlib.ExitStack() as preparing:
        preparing.enter_context(exiting_at_once(unbegun))
        from milan_pipeline.devices import pick_device  # noqa: PLC0415 - imports torch
        from milan_pipeline.distributed import joined_world, local_device  # noqa: PLC0415

        train, device = load(), local_device(pick_device(config.device))
        with joined_world(device) as world:
            train(config, device, world, stop, preparing.close)
