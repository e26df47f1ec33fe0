"""Timing an untrained tower: which precisions, how faithful, and how many multiply-adds."""

from pathlib import Path

import pytest
import torch

from milan_pipeline.planning.teacher_speed import (
    MEASURED_PRECISIONS,
    PROBE_IMAGES,
    TeacherSpeed,
    fastest,
    fastest_batch,
    measure_speeds,
    multiply_adds,
    usual_batches,
)
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import write_tiny_clip
from tests.support.disturbances import before_modules
from tests.support.timm_teachers import write_timm


@pytest.fixture
def spec(tiny_clip: Path) -> TeacherSpec:
    return TeacherSpec(name=f"local-dir:{tiny_clip}")


def test_every_precision_and_batch_is_timed(spec: TeacherSpec) -> None:
    speeds = list(measure_speeds(spec, device="cpu", batches=[3, 2], seconds=0))
    assert [(speed.precision, speed.batch) for speed in speeds] == [
        (precision, batch) for precision in MEASURED_PRECISIONS for batch in (2, 3)
    ]
    assert all(speed.rate > 0 for speed in speeds)
    assert speeds[0].cosine == pytest.approx(1, abs=1e-6)
    assert all(0.99 < speed.cosine < 1.000001 for speed in speeds)


def test_a_slow_batch_is_the_last(spec: TeacherSpec) -> None:
    speeds = measure_speeds(spec, device="cpu", batches=[2, 3], seconds=0, longest_warm_up=0)
    assert [speed.batch for speed in speeds] == [2] * len(MEASURED_PRECISIONS)


def test_a_batch_beyond_memory_is_passed_over(spec: TeacherSpec) -> None:
    def short_of_memory(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if isinstance(module, torch.nn.Conv2d) and len(inputs[0]) > PROBE_IMAGES:
            raise torch.OutOfMemoryError

    with before_modules(short_of_memory):
        speeds = list(measure_speeds(spec, device="cpu", batches=[2, 5], seconds=0))
    assert [speed.batch for speed in speeds] == [2] * len(MEASURED_PRECISIONS)


def test_the_fastest_must_be_faithful() -> None:
    speeds = [
        TeacherSpeed(precision="fp32", batch=2, rate=5, cosine=1),
        TeacherSpeed(precision="fp32", batch=4, rate=6, cosine=1),
        TeacherSpeed(precision="bf16", batch=2, rate=9, cosine=0.9985),
    ]
    assert fastest(speeds) == speeds[1]
    assert not speeds[2].is_faithful


def test_untrained_towers_are_alike_and_quiet(tmp_path: Path, caplog) -> None:
    spec = TeacherSpec(name=f"local-dir:{write_tiny_clip(tmp_path, seed=5)}")
    state = torch.random.get_rng_state()
    first, second = (Teacher.untrained(spec) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not caplog.records
    assert first.weights_sha256 == second.weights_sha256 != Teacher.load(spec).weights_sha256


def test_multiply_adds(spec: TeacherSpec) -> None:
    """17 tokens of width 32 through 2 blocks, 16 patches of 192 values, a 32 x 24 projection."""
    block = 12 * 32 * 32 * 17 + 2 * 17 * 17 * 32
    around = 16 * 192 * 32 + 17 * 32 * 24
    found = multiply_adds(spec)
    assert 2 * block + around <= found <= 1.15 * (2 * block + around)


def test_a_teacher_of_timm_is_planned_as_others_are(tmp_path: Path) -> None:
    """21 tokens, as four are registers; there is no projection."""
    spec = TeacherSpec(name=write_timm(tmp_path, "dinov2-registers"))
    block = 12 * 32 * 32 * 21 + 2 * 21 * 21 * 32
    around = 16 * 3 * 14 * 14 * 32
    assert 2 * block + around <= multiply_adds(spec) <= 1.15 * (2 * block + around)
    speeds = list(measure_speeds(spec, device="cpu", batches=[2], seconds=0))
    assert all(speed.rate > 0 and speed.is_faithful for speed in speeds)


def test_other_devices_are_given_larger_batches() -> None:
    assert max(usual_batches("cpu")) < min(usual_batches("cuda"))


class Clocked:
    """A teacher on a clock of its own: a batch takes so many seconds, or does not fit."""

    image_size, device = 2, torch.device("cpu")

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self, pixels_BCSS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(pixels_BCSS) not in self.seconds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.now += self.seconds[len(pixels_BCSS)]
        return torch.zeros(1), torch.zeros(1)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({2: 2.0, 4: 2.0, 8: 4.0, 16: 1.0}, 4),  # 8 is no faster: 16 is not tried
        ({2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0}, 8),  # of the largest, nothing larger is known to fit
        ({2: 1.0, 4: 1.0, 8: 1.0}, 4),  # 16 does not fit, and 8 may not beside a codec
        ({2: 1.0, 4: 1.95, 8: 3.89}, 2),  # 4 is hardly faster
        ({2: 1.0}, 2),
    ],
)
def test_the_smallest_of_the_fastest_batches_is_chosen(
    seconds: dict[int, float], chosen: int
) -> None:
    teacher = Clocked(seconds)
    assert fastest_batch(teacher, (2, 4, 8, 16), clock=lambda: teacher.now) == chosen


def test_no_batch_fits() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        fastest_batch(Clocked({}), (2, 4))
