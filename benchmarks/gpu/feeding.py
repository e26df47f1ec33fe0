"""What feeds the student: decoding of targets on the device, and the loader's processes."""

import contextlib
import functools
import tempfile
from collections.abc import Generator
from pathlib import Path

import torch

from benchmarks.gpu.extraction import cores
from benchmarks.gpu.numbers import codec_of
from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import pretraining, timed_steps
from benchmarks.stream_data import World, make_world
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.registry import LEVELS, PLAIN
from milan_pipeline.data.order import OrderConfig, usable_workers
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches
from milan_pipeline.pretraining.examples import Batch, ExampleConfig, ToExamples

BATCH, WIDTH = 512, 512
LANES, BLOCK, PHOTOS = 64, 64, 64
MANY = 10**5
PER_CORE = "loader, images/s of a core"


def targets(setting: Setting, known: Figures, found: Findings) -> None:
    """Measure how many images' targets a second each codec decodes on the device."""
    del known
    batch, tokens, width = setting.of(BATCH, 2), 1 + setting.patches, setting.of(WIDTH, 32)
    for name in (*PLAIN, *LEVELS):
        with found.going_on(name):
            codec = codec_of(name, width, tokens)
            drawn = torch.randn(batch, tokens, width, device=setting.device)
            decode = functools.partial(codec.decode, *codec.encode(drawn))
            found.figure(f"decode {name}, images/s", setting.rate(decode, batch))


def loader(setting: Setting, known: Figures, found: Findings) -> None:
    """Train from shards on this disk, with a loader process a core: how long the trainer waits."""
    del known
    batch, lanes = setting.of(BATCH, 8), setting.of(LANES, 8)
    workers = usable_workers(setting.of(cores(), 1), lanes)
    width = setting.of(WIDTH, 24)
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(
            Path(folder),
            setting.of(4 * BATCH, 32),
            width,
            patches=setting.patches,
            photos=setting.of(PHOTOS, 4),
        )
        order = OrderConfig(seed=0, batch=batch, lanes=lanes, block=BLOCK)
        with contextlib.closing(_stream(setting, world, order, workers=0)) as alone:
            rate = batch / setting.seconds_of(lambda: next(alone), 1)
            found.figure(PER_CORE, rate)
        with contextlib.closing(_stream(setting, world, order, workers=workers)) as stream:
            student = setting.student("B/16", width)
            task = pretraining(student, make_codec("int8"), setting.precision)
            count = setting.of(40, 2)
            steps = timed_steps(setting, task, stream, compiled=True, count=count)
    found.figure("step B/16 from shards, images/s", steps.rate)
    found.figure("step B/16 from shards, data wait", steps.waited)
    found.figure("step B/16 from shards, loader processes", workers)


def _stream(
    setting: Setting, world: World, order: OrderConfig, *, workers: int
) -> Generator[Batch, None, None]:
    examples = ExampleConfig(
        image_size=setting.image_size,
        patch_size=setting.patch_size,
        kept=setting.kept,
        mask_seed=0,
        layouts=(world.layout,),
    )
    return batches(
        PairSamples(world.pairs),
        order,
        ToExamples(examples),
        steps=range(MANY),
        workers=workers,
        pin_memory=setting.on_gpu,
    )
