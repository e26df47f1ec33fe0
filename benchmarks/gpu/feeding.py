"""What feeds the student: decoding of targets on the device, and the loader's processes."""

import functools
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu.extraction import cores
from benchmarks.gpu.numbers import codec_of
from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import pretraining, timed_steps
from benchmarks.stream_data import make_world
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.registry import LEVELS, PLAIN
from milan_pipeline.data.order import OrderConfig, usable_workers
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches
from milan_pipeline.pretrain.examples import ExampleConfig, ToExamples

BATCH, WIDTH = 512, 512
LANES, BLOCK, PHOTOS = 64, 64, 64
MANY = 10**5


def targets(setting: Setting, known: Figures, found: Findings) -> None:
    """Measure how many images' targets a second each codec decodes on the device."""
    del known
    batch, tokens, width = setting.of(BATCH, 2), 1 + setting.patches, setting.of(WIDTH, 32)
    for name in (*PLAIN, *LEVELS):
        with found.going_on(name):
            codec = codec_of(name, width)
            drawn = torch.randn(batch, tokens, width, device=setting.device)
            decode = functools.partial(codec.decode, *codec.encode(drawn))
            found.figure(f"decode {name}, images/s", setting.rate(decode, batch))


def loader(setting: Setting, known: Figures, found: Findings) -> None:
    """Train from shards on this disk, with a loader process a core: how long the trainer waits."""
    del known
    batch, lanes = setting.of(BATCH, 8), setting.of(LANES, 8)
    workers = usable_workers(setting.of(cores(), 1), lanes)
    with tempfile.TemporaryDirectory() as folder:
        width = setting.of(WIDTH, 24)
        world = make_world(
            Path(folder),
            setting.of(4 * BATCH, 32),
            width,
            patches=setting.patches,
            photos=setting.of(PHOTOS, 4),
        )
        examples = ExampleConfig(
            image_size=setting.image_size,
            patch_size=setting.patch_size,
            kept=setting.kept,
            mask_seed=0,
            layout=world.layout,
        )
        stream = batches(
            PairSamples(world.pairs),
            OrderConfig(seed=0, batch=batch, lanes=lanes, block=BLOCK),
            ToExamples(examples),
            steps=range(MANY),
            workers=workers,
            pin_memory=setting.on_gpu,
        )
        task = pretraining(setting.student("B/16", width), make_codec("int8"), setting.precision)
        count = setting.of(40, 2)
        steps = timed_steps(setting, task, stream, compiled=True, count=count)
        stream.close()
    found.figure("step B/16 from shards, images/s", steps.rate)
    found.figure("step B/16 from shards, data wait", steps.waited)
    found.figure("step B/16 from shards, loader processes", workers)
