"""Measure how fast a teacher runs here in each precision, and how near its targets are to fp32.

The tower is untrained, since only its architecture decides the speed. Its cosines only hint at
those of the trained tower; `milan-pipeline verify` measures the cosines of real targets.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from milan_pipeline.core.out_of_memory import is_out_of_memory
from milan_pipeline.teacher.spec import PRECISIONS, TeacherSpec
from milan_pipeline.teacher.teacher import Teacher

LEAST_COSINE = 0.999
MEASURED_PRECISIONS = tuple(name for name in PRECISIONS if name != "auto")
CPU_BATCHES, OTHER_BATCHES = (8, 32), (64, 256)
SEARCHED_BATCHES = (32, 64, 128, 256, 512, 1024)
NO_FASTER, ALMOST = 1.02, 0.97
PROBE_IMAGES = 4
LONGEST_WARM_UP_SECONDS = 5.0
Clock = Callable[[], float]


class TimedTeacher(Protocol):
    """What is timed: a teacher.Teacher, or what is called as one."""

    @property
    def image_size(self) -> int:
        """Pixels along a side of a view."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def __call__(self, pixels_BCHW: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn uint8 views into targets and priors, on the device."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSpeed:
    """Images/s of one precision and batch size, and the mean cosine to the fp32 targets."""

    precision: str
    batch: int
    rate: float
    cosine: float

    @property
    def is_faithful(self) -> bool:
        """Whether its targets are near enough to those of fp32."""
        return self.cosine >= LEAST_COSINE


def measure_speeds(
    spec: TeacherSpec,
    *,
    device: str,
    batches: Sequence[int],
    seconds: float,
    longest_warm_up: float = LONGEST_WARM_UP_SECONDS,
) -> Iterator[TeacherSpeed]:
    """Time an untrained tower on random pixels, in every precision.

    Args:
        spec: the tower; its precision is ignored.
        device: where it runs.
        batches: batch sizes, tried in ascending order until one is too slow or too large.
        seconds: the shortest time that each is measured.
        longest_warm_up: seconds; a first batch that takes longer is too slow.

    Raises:
        ConfigError: there is no such tower.
    """
    reference = _tower(spec, "fp32", device)
    pixels = _pixels(PROBE_IMAGES, reference.image_size)
    wanted, _ = reference(pixels)
    for precision in MEASURED_PRECISIONS:
        teacher = reference if precision == "fp32" else _tower(spec, precision, device)
        found, _ = teacher(pixels)
        cosine = float(F.cosine_similarity(found, wanted, dim=-1).mean())
        for batch in sorted(batches):
            try:
                rate, warm_up = _timed(teacher, _pixels(batch, teacher.image_size), seconds)
            except torch.OutOfMemoryError:
                break
            yield TeacherSpeed(precision=precision, batch=batch, rate=rate, cosine=cosine)
            if warm_up > longest_warm_up:
                break


def fastest_batch(
    teacher: TimedTeacher,
    batches: Sequence[int] = SEARCHED_BATCHES,
    *,
    seconds: float = 0.3,
    clock: Clock = time.perf_counter,
) -> int:
    """Return the smallest batch size that is about as fast as any, by timing random pixels.

    The next larger size must fit into memory, too, if there is one that does: the codec and the
    batch that is copied meanwhile take some beside the teacher.

    Args:
        teacher: as it will run.
        batches: sizes, ascending; the search ends where they bring no more, or memory runs out.
        seconds: the shortest time that each is measured.
        clock: seconds, from any moment on.

    Raises:
        MemoryError, RuntimeError: not even the smallest fits.
    """
    rates: dict[int, float] = {}
    for batch in batches:
        try:
            pixels = _pixels(batch, teacher.image_size).to(teacher.device)
            rate, _ = _timed(teacher, pixels, seconds, clock)
        except (MemoryError, RuntimeError) as error:
            if not (rates and is_out_of_memory(error)):
                raise
            break
        best = max(rates.values(), default=0.0)
        rates[batch] = rate
        if rate < NO_FASTER * best:
            break
    if len(rates) > 1:
        rates.popitem()
    enough = ALMOST * max(rates.values())
    return next(batch for batch, rate in rates.items() if rate >= enough)


def usual_batches(device: str) -> tuple[int, ...]:
    """Return the batch sizes to measure on a device."""
    return CPU_BATCHES if device == "cpu" else OTHER_BATCHES


def fastest(speeds: Sequence[TeacherSpeed]) -> TeacherSpeed:
    """Return the fastest speed of a precision that is near enough to fp32, which always is."""
    return max((speed for speed in speeds if speed.is_faithful), key=lambda speed: speed.rate)


def multiply_adds(spec: TeacherSpec) -> float:
    """Count the multiply-adds of one image's forward pass."""
    teacher = _tower(spec, "fp32", "cpu")
    # Not every version of torch counts fused attention; all count its two matrix products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        teacher(_pixels(1, teacher.image_size))
    return float(counter.get_total_flops() / 2)


def _tower(spec: TeacherSpec, precision: str, device: str) -> Teacher:
    return Teacher.untrained(dataclasses.replace(spec, precision=precision), device=device)


def _pixels(count: int, size: int) -> torch.Tensor:
    """Return random pixels, always the same: (count, 3, size, size) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def _timed(
    teacher: TimedTeacher,
    pixels: torch.Tensor,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> tuple[float, float]:
    """Return images/s, and the seconds of the first batch, which images/s do not include."""
    warm_up = _seconds_of(teacher, pixels, clock)
    batches, elapsed = 0, 0.0
    while batches == 0 or elapsed < seconds:
        elapsed += _seconds_of(teacher, pixels, clock)
        batches += 1
    return batches * len(pixels) / elapsed, warm_up


def _seconds_of(teacher: TimedTeacher, pixels: torch.Tensor, clock: Clock) -> float:
    started = clock()
    _, prior = teacher(pixels)
    prior.cpu()  # waits for the device
    return clock() - started
