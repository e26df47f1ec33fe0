"""How fast a bare teacher is: images that lie on the device go through it, and nothing else."""

import functools

import torch

from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting

BATCH = 256
SIZES = ("B/16", "L/14")
KINDS = [("bf16", True), ("bf16", False), ("fp16", False), ("fp16", True)]
"""Precision and whether compiled; what goals are of comes first."""


def measure(size: str, setting: Setting, known: Figures, found: Findings) -> None:
    """Measure a teacher in bf16 and fp16, compiled and not."""
    del known
    for precision, compiled in KINDS:
        name = named(size, precision, compiled=compiled)
        with found.going_on(name):
            teacher = setting.teacher(size, precision, compiled=compiled)
            batch = setting.of(BATCH, 2)
            side = teacher.image_size
            views = torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=setting.device)
            found.figure(
                f"{name}, images/s", setting.rate(functools.partial(teacher, views), batch)
            )
            found.figure(f"{name}, GiB", setting.peak_gib())


def named(size: str, precision: str, *, compiled: bool) -> str:
    """Return the name of a teacher's figures."""
    return f"teacher {size} {precision} {'compiled' if compiled else 'eager'}"


def best_rate(known: Figures, size: str) -> float | None:
    """Return the images/s of the fastest kind of a teacher, if any was measured."""
    rates = [
        rate
        for precision, compiled in KINDS
        if (rate := known.get(f"{named(size, precision, compiled=compiled)}, images/s"))
    ]
    return max(rates, default=None)
