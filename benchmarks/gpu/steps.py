"""Steps of our trainer on batches that a part makes, timed by the stream that gives them.

Legend: as in `pretrain.examples`.
"""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.setting import Setting
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import StepClock
from milan_pipeline.models.student import Student
from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.pretraining.task import Pretraining, PretrainingConfig, Targets
from milan_pipeline.training.trainer import Trainer, TrainingConfig

NEVER = 10**9
EPOCH = 10**6


def pretraining(
    student: Student, targets: Codec | Targets, precision: str, *, residual: str = "fp32"
) -> Pretraining:
    """Return the task of pretraining a student by the published recipe.

    Args:
        student: on its device.
        targets: decodes them.
        precision: "bf16" or "fp32".
        residual: type of the tokens between blocks, likewise.
    """
    recipe = PretrainingConfig(
        batch=4096,
        epochs=400,
        warmup_epochs=0,
        base_lr=1.5e-4,
        weight_decay=0.05,
        bf16=precision == "bf16",
        residual_dtype=residual,
    )
    return Pretraining(student, {"": targets}, recipe)


def example_batch(setting: Setting, size: int, width: int, *, seed: int = 0) -> Batch:
    """Draw a batch with int8 targets; it is in page-locked memory if the device is a GPU."""
    random = torch.Generator().manual_seed(seed)
    patches, kept = setting.patches, setting.kept
    order = torch.rand(size, patches, generator=random).argsort(1)
    pixels = 3 * setting.patch_size**2
    fields = (
        torch.randint(0, 256, (size, kept, pixels), dtype=torch.uint8, generator=random),
        order[:, :kept].sort(1).values,
        order[:, kept:].sort(1).values,
        torch.randint(-127, 128, (size, 1 + patches, width), dtype=torch.int8, generator=random),
        torch.full((size, 1 + patches), 0.01, dtype=torch.float16),
    )
    pinned = [each.pin_memory() if setting.on_gpu else each for each in fields]
    patches_BKP, kept_BK, masked_BM, codes_BTC, scale_BT = pinned
    keys = [str(number) for number in range(size)]
    return Batch(patches_BKP, kept_BK, masked_BM, [codes_BTC], [scale_BT], keys)


class Steps(NamedTuple):
    """What timed steps took.

    Attributes:
        rate: images/s.
        waited: share of the time in which the trainer waited for a batch.
        gib: the most memory of tensors on a GPU.
    """

    rate: float
    waited: float
    gib: float


def timed_steps(
    setting: Setting,
    task: Pretraining,
    batches: Iterator[Batch],
    *,
    compiled: bool = False,
    count: int | None = None,
    around: contextlib.AbstractContextManager[object] | None = None,
) -> Steps:
    """Have our trainer take steps, and time them after the first few.

    Args:
        setting: where, and for how long.
        task: what is trained.
        batches: without an end; each is taken when the trainer asks for it.
        compiled: whether the student's blocks are compiled.
        count: steps that are timed; None is as many as the setting's time allows.
        around: a context in which the timed steps are taken.
    """
    measured: list[Steps] = []

    def batches_from(run: range) -> Generator[Batch, None, None]:
        del run
        for _ in range(1 if setting.tiny else 5):
            yield next(batches)
        setting.synchronise()
        started = time.perf_counter()
        yield next(batches)
        setting.synchronise()
        steps = count or max(2, int(setting.seconds / (time.perf_counter() - started)))
        setting.peak_gib()
        images, waited, started = 0, 0.0, time.perf_counter()
        with around or contextlib.nullcontext():
            for _ in range(steps):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                images += len(batch.keys)
                yield batch
        setting.synchronise()
        seconds = time.perf_counter() - started
        measured.append(Steps(images / seconds, waited / seconds, setting.peak_gib()))

    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(Path(run), task, training(compiled=compiled), StepClock((EPOCH,)))
        trainer.train(batches_from, StopRequest())
    return measured[0]


def training(*, compiled: bool = False, fsdp: bool = False, **changes: Any) -> TrainingConfig:
    """Return what the trainer needs to know; nothing is logged or kept but by `changes`."""
    config = TrainingConfig(
        batch=NEVER,
        micro_batch=NEVER,
        total_steps=NEVER,
        checkpoint_every=NEVER,
        keep=1,
        log_every=NEVER,
        compile=compiled,
        fsdp=fsdp,
    )
    return dataclasses.replace(config, **changes)
