"""Timing an untrained tower: which precisions, how faithful, and how many multiply-adds."""

from pathlib import Path

import pytest
import torch

from milan_pipeline.planning.teacher_speed import (
    MEASURED_PRECISIONS,
    PROBE_IMAGES,
    TeacherSpeed,
    fastest,
    measure_speeds,
    multiply_adds,
    usual_batches,
)
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import write_tiny_clip
from tests.support.disturbances import before_modules


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


def test_other_devices_are_given_larger_batches() -> None:
    assert max(usual_batches("cpu")) < min(usual_batches("cuda"))
