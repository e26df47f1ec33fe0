"""On a GPU nothing waits: torch raises where a training step or a batch of extraction does."""

import contextlib
import itertools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.extract_data import repeated_shards
from benchmarks.gpu.numbers import codec_of
from benchmarks.gpu.running import Figures, Findings, NotRunError
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import example_batch, pretraining, timed_steps
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.device_copies import DeviceCopies
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.target_batches import compute
from milan_pipeline.extraction.view_batches import PixelBuffers, ViewBatch, view_batches
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.targets.unit_list import list_units

STEPS = 4
BATCH = 256
"""As in `kernels`, which then finds what was compiled here."""
CODECS = ("float16", "int8", "high")


@contextlib.contextmanager
def no_waiting(setting: Setting) -> Iterator[None]:
    """Have torch raise inside the block where the host waits for the GPU."""
    if setting.on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if setting.on_gpu:
            torch.cuda.set_sync_debug_mode("default")


def check(setting: Setting, known: Figures, found: Findings) -> None:
    """Take steps of training, and batches of extraction with several codecs.

    Raises:
        NotRunError: there is no GPU; all of it was done, but nothing there could wait.
    """
    del known
    for compiled in (False, True):
        with found.going_on(f"steps {'compiled' if compiled else 'eager'}"):
            width = setting.of(512, 32)
            student = setting.student("B/16", width)
            task = pretraining(student, make_codec("int8"), setting.precision)
            batches = itertools.repeat(example_batch(setting, setting.of(BATCH, 4), width))
            around = no_waiting(setting)
            timed_steps(setting, task, batches, compiled=compiled, count=STEPS, around=around)
    teacher = setting.teacher("B/16", setting.precision)
    with tempfile.TemporaryDirectory() as folder:
        manifest = repeated_shards(Path(folder), 1, images=setting.of(256, 16))
        for name in CODECS:
            with found.going_on(f"extraction with {name}"):
                job = ExtractionJob(
                    manifest=manifest,
                    store=folder,
                    identity_hash="",
                    teacher=teacher,
                    policy=ViewPolicy(),
                    codec=codec_of(name, teacher.width, 1 + math.prod(teacher.grid)),
                    batch_size=setting.of(64, 4),
                    workers=2,
                )
                _extract(setting, job)
    if not setting.on_gpu:
        raise NotRunError("no GPU: its steps were taken, but only on a GPU could any wait")


def _extract(setting: Setting, job: ExtractionJob) -> None:
    units = list_units(job.manifest, 1)
    buffers = PixelBuffers.of(job, units)
    copies = DeviceCopies(job.teacher.device)
    results = []
    with contextlib.closing(view_batches(job, units, buffers)) as batches:
        for number, batch in enumerate(batches):
            if not isinstance(batch, ViewBatch):
                continue
            # With the first batch, tables of the codec go to the device.
            with no_waiting(setting) if number else contextlib.nullcontext():
                results.append(compute(job, batch, batch.good_rows(), copies))
    for result in results:
        result.to_block(buffers)
