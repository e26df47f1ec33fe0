"""Which kernels take the time of a student's step: those at the top of a profile."""

import itertools

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import example_batch, pretraining, timed_steps
from milan_pipeline.codecs.build import make_codec

STEPS, SHOWN, BATCH, WIDTH = 3, 10, 256, 512


def measure(setting: Setting, known: Figures, found: Findings) -> None:
    """Profile steps of B/16, compiled; say the share of each kernel in their time."""
    del known
    width = setting.of(WIDTH, 24)
    task = pretraining(setting.student("B/16", width), make_codec("int8"), setting.precision)
    batches = itertools.repeat(example_batch(setting, setting.of(BATCH, 4), width))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.on_gpu else [])]
    with_kernels = profile(activities=activities)
    timed_steps(setting, task, batches, compiled=True, count=STEPS, around=with_kernels)
    kind = setting.device.type.upper()
    times = {
        event.key: event.self_device_time_total if setting.on_gpu else event.self_cpu_time_total
        for event in with_kernels.key_averages()
        if event.device_type.name
        == kind  # operations of the host count their kernels' time once more
    }
    whole = sum(times.values())
    for name in sorted(times, key=lambda name: -times[name])[:SHOWN]:
        found.figure(f"kernel {name[:70]}, share", times[name] / whole)
