"""Two processes that train together, on a GPU each, have the losses of one: copied and sharded."""

import dataclasses
import json
import os
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path

import torch

from benchmarks.gpu.running import Figures, Findings, NotRunError, run_children
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import EPOCH, example_batch, pretraining, training
from milan_pipeline.cluster.world import joined_world, local_device
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import StepClock
from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.training.trainer import Trainer

BATCH, WIDTH, STEPS, PROCESSES = 8, 32, 4, 2
SAME_LOSS = 1e-4


def check(setting: Setting, known: Figures, found: Findings) -> None:
    """Compare the losses of two processes with those of one.

    Raises:
        NotRunError: there is one GPU.
    """
    del known
    if setting.on_gpu and torch.cuda.device_count() < PROCESSES:
        raise NotRunError("there is one GPU")
    small = dataclasses.replace(setting, device_name=setting.device.type, tiny=True)
    with tempfile.TemporaryDirectory() as folder:
        alone = _losses(small, Path(folder, "alone"), processes=1, fsdp=False)
        for name, fsdp in (("copied", False), ("sharded", True)):
            with found.going_on(name):
                together = _losses(small, Path(folder, name), processes=PROCESSES, fsdp=fsdp)
                apart = max(abs(a / b - 1) for a, b in zip(together, alone, strict=True))
                found.check(f"two processes, {name}: losses apart", apart, most=SAME_LOSS)


def _losses(setting: Setting, run: Path, *, processes: int, fsdp: bool) -> list[float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    worlds = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    codes = run_children(train, [(setting, run, variables, fsdp) for variables in worlds])
    if any(codes):
        raise RuntimeError(f"the processes ended with {codes}")
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def train(setting: Setting, run: Path, variables: dict[str, str], fsdp: bool) -> None:
    """Train a small student as one of the processes that the variables name."""
    os.environ |= variables
    device = local_device(setting.device)
    own = Setting(device_name=str(device), tiny=True)
    task = pretraining(own.student("B/16", WIDTH), make_codec("int8"), "fp32")
    with joined_world(device) as world:
        part = slice(world.rank * BATCH // world.size, (world.rank + 1) * BATCH // world.size)

        def batches_from(steps: range) -> Generator[Batch, None, None]:
            for step in steps:
                batch = example_batch(own, BATCH, WIDTH, seed=step)
                codes, scales = ([each[part] for each in of] for of in (batch.codes, batch.scales))
                own_part = Batch._make(each[part] for each in batch)
                yield own_part._replace(codes=codes, scales=scales)

        config = training(total_steps=STEPS, log_every=1, batch=BATCH, fsdp=fsdp)
        trainer = Trainer(run, task, config, StepClock((EPOCH,)), world=world)
        trainer.train(batches_from, StopRequest())
