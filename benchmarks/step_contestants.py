"""The contestants of `benchmarks.pretrain_step`: our trainer on stored pairs, and a plain one."""

import dataclasses
import tempfile
import time
from collections.abc import Generator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import turns
from benchmarks.plain_step import (
    GRID,
    IMAGE_SIZE,
    KEPT,
    PATCH_SIZE,
    PIXEL_MEAN,
    PIXEL_STD,
    PlainStep,
)
from benchmarks.stream_data import World
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import OrderConfig
from milan_pipeline.data.pair_table import PairTable
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches, step_clock
from milan_pipeline.models.build import StudentSpec, build_student
from milan_pipeline.pretraining.examples import Batch, ExampleConfig, ToExamples
from milan_pipeline.pretraining.phi_s import StandardisedTargets, fit_phi_s
from milan_pipeline.pretraining.task import Pretraining, PretrainingConfig, Targets
from milan_pipeline.targets.shard_records import RecordLayout
from milan_pipeline.training.trainer import Trainer, TrainingConfig

NEVER = 10**9
EPOCHS = 10**4
WARM_UP = 2


def serve_ours(
    connection: "Connection[Any, Any]",
    *,
    pairs: PairTable,
    layouts: tuple[RecordLayout, ...],
    batch: int,
    bf16: bool,
    phi_s: bool = False,
    cpu_time: bool = False,
) -> None:
    """Train with our trainer, one step a turn; "whole" steps also read pairs from disk.

    Args:
        connection: to the process that asks.
        pairs: images with the targets of each teacher.
        layouts: of their records.
        batch: images in a step.
        bf16: whether the student computes under bfloat16 autocast.
        phi_s: learn targets that PHI-S standardises, by their squared error.
        cpu_time: count the CPU seconds of all threads, not the time that passes.
    """
    order = OrderConfig(seed=0, batch=batch, lanes=batch, block=64)
    samples = PairSamples(pairs)
    clock = step_clock(samples, order)
    examples = ExampleConfig(
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        kept=KEPT,
        mask_seed=0,
        layouts=layouts,
    )
    spec = StudentSpec(name="vit_base_patch16_224")
    widths = [layout.width for layout in layouts]
    student, _ = build_student(spec, grid=(GRID, GRID), target_width=sum(widths), seed=0)
    targets: dict[str, Targets] = {
        str(number): _standardised(width) if phi_s else make_codec("int8")
        for number, width in enumerate(widths)
    }
    recipe = _recipe(batch, bf16=bf16)
    if phi_s:
        recipe = dataclasses.replace(recipe, loss="mse", target_norm="phi-s")

    def batches_from(steps: range) -> Generator[Batch, None, None]:
        stream = batches(samples, order, ToExamples(examples), steps=steps, workers=0)
        given = next(stream)
        for _ in range(WARM_UP):
            yield given
        clock = time.process_time if cpu_time else time.perf_counter
        for what in turns(connection, clock):
            yield next(stream) if what == "whole" else given

    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(
            Path(run),
            Pretraining(student, targets, recipe),
            _training(batch, clock.total(EPOCHS)),
            clock,
        )
        trainer.train(batches_from, StopRequest())


def _standardised(width: int) -> StandardisedTargets:
    """Return what decodes int8 targets of a width and standardises them, as if they were noise."""
    sample_TD = torch.randn(2 * width, width, generator=torch.Generator().manual_seed(0))
    return StandardisedTargets(make_codec("int8"), fit_phi_s(sample_TD))


def _training(batch: int, total_steps: int) -> TrainingConfig:
    return TrainingConfig(
        batch=batch,
        micro_batch=batch,
        total_steps=total_steps,
        checkpoint_every=NEVER,
        keep=1,
        log_every=10,
    )


def _recipe(batch: int, *, bf16: bool) -> PretrainingConfig:
    return PretrainingConfig(
        batch=batch,
        epochs=EPOCHS,
        warmup_epochs=0.0,
        base_lr=1e-4,
        weight_decay=0.05,
        bf16=bf16,
        mean=PIXEL_MEAN,
        std=PIXEL_STD,
    )


def serve_plain(
    connection: "Connection[Any, Any]",
    *,
    world: World,
    batch: int,
    teacher: str,
    teacher_size: int,
    bf16: bool,
) -> None:
    """Take one published step a turn: "student" alone, "teacher" alone, or the "whole" step."""
    step = PlainStep(
        jpegs=world.jpegs,
        batch=batch,
        teacher=teacher,
        teacher_size=teacher_size,
        bf16=bf16,
    )
    for _ in range(WARM_UP):
        step.whole()
    for what in turns(connection):
        getattr(step, what)()
