"""Extraction from shards to a store, end to end, as a share of the bare teacher's images/s."""

import functools
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.extract_data import repeated_shards
from benchmarks.gpu.numbers import codec_of
from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting
from benchmarks.stream_data import HEIGHT, WIDTH, photo
from milan_pipeline.codecs.registry import LEVELS, PLAIN
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.targets.unit_list import list_units

BATCH, IMAGES = 256, 512  # of a batch, of a shard
SHARDS = {"B/16": 16, "L/14": 8}
PHOTOS = 32
PER_CORE = "decode and cut a 500x375 JPEG, images/s of a core"


def measure(size: str, setting: Setting, known: Figures, found: Findings) -> None:
    """Extract with every codec, and measure the bare teacher in the same process."""
    del known
    precision, batch = setting.precision, setting.of(BATCH, 4)
    teacher = setting.teacher(size, precision, compiled=True)
    side = teacher.image_size
    views = torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=setting.device)
    bare = setting.rate(functools.partial(teacher, views), batch)
    found.figure(f"extraction {size}: bare teacher, images/s", bare)
    with tempfile.TemporaryDirectory() as folder:
        images = setting.of(IMAGES, 8)
        manifest = repeated_shards(Path(folder, "images"), setting.of(SHARDS[size], 2), images)
        for name in (*PLAIN, *LEVELS):
            with found.going_on(f"extraction {size} {name}"):
                job = ExtractionJob(
                    manifest=manifest,
                    store=str(Path(folder, "store")),
                    identity_hash="benchmark",
                    teacher=teacher,
                    policy=ViewPolicy(),
                    codec=codec_of(name, teacher.width, 1 + math.prod(teacher.grid)),
                    batch_size=batch,
                    workers=cores(),
                    whole=True,
                )
                rate = _rate(job)
                found.figure(f"extraction {size} {name}, images/s", rate)
                found.figure(f"extraction {size} {name}, share of the bare teacher", rate / bare)
            shutil.rmtree(Path(folder, "store"), ignore_errors=True)
    found.figure(f"extraction {size}, GiB", setting.peak_gib())


def _rate(job: ExtractionJob) -> float:
    """Return images/s from the end of the first unit to that of the last."""
    budget = BadImageBudget(fraction=0, images=job.manifest.samples)
    ends, done = [], []
    for mark in extract_units(job, list_units(job.manifest, 1), budget, StopRequest()):
        ends.append(time.perf_counter())
        done.append(mark.n)
    return sum(done[1:]) / (ends[-1] - ends[0])


def decoding(setting: Setting, known: Figures, found: Findings) -> None:
    """Measure how many images a second one core decodes and cuts, and how many cores there are."""
    del known
    jpegs = [photo(number) for number in range(setting.of(PHOTOS, 2))]
    policy, side = ViewPolicy(), setting.of(224, 32)
    boxes = [policy.box(HEIGHT, WIDTH, str(number), 0) for number in range(len(jpegs))]
    torch.set_num_threads(1)

    def run() -> None:
        for data, box in zip(jpegs, boxes, strict=True):
            view_pixels(decode_rgb(data), box, side)

    found.figure(PER_CORE, setting.rate(run, len(jpegs)))
    found.figure("cores", cores())


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
