"""What a run is told of its loader processes, of images left out, and of its options."""

from typing import Any

import pytest

from milan_pipeline.data.order import OrderConfig
from milan_pipeline.stages.shared.training_notes import (
    tell_of_left_out,
    tell_of_loaders,
    warn_of_idle,
    warn_of_rising_rate,
)
from milan_pipeline.stages.shared.training_options import TrainingOptions


@pytest.fixture
def twelve_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.usefixtures("twelve_cores")
def test_loaders_are_as_many_as_cores_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainingOptions(out="x", workers="auto").loaders == 12
    assert TrainingOptions(out="x", workers=3).loaders == 3
    assert TrainingOptions(out="x", workers="auto", processes=4).loaders == 3
    for local, each in ((8, 1), (2, 6), (24, 1)):  # as torchrun says
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
        assert TrainingOptions(out="x", workers="auto").loaders == each


@pytest.mark.usefixtures("twelve_cores")
@pytest.mark.parametrize(
    ("workers", "processes", "said"),
    [
        (
            6,
            8,
            "4 loader processes run in each process and not 6, since they share its 8 of 64 lanes",
        ),
        ("auto", 1, "--workers auto: 8 loader processes run in each process and not 12"),
        (8, 8, ""),
        (0, 64, ""),
    ],
)
def test_fewer_loaders_than_asked_for_are_told(
    workers: Any, processes: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order = OrderConfig(seed=0, batch=64, lanes=64, block=1)
    tell_of_loaders(TrainingOptions(out="x", workers=workers), order, processes)
    told = capsys.readouterr().err
    assert said in told
    assert bool(said) == bool(told)


def test_images_that_no_batch_has_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell_of_left_out(8, 0)
    assert capsys.readouterr().err == ""
    tell_of_left_out(7, 3)
    assert "batches of --batch-size 7 leave out 3 images of each epoch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("base", "least", "said"),
    [
        (1e-4, 1e-6, ""),
        (1e-4, 2e-6, "--min-lr 2e-06 is above 1.56e-06, to which --base-lr 0.0001 is scaled for"),
        (0.0, 1e-6, "--min-lr 1e-06 is above 0, to which --base-lr 0"),
        (0.0, 0.0, ""),
    ],
)
def test_a_rate_that_rises_to_the_end_is_told(
    base: float, least: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_rising_rate(base, least, 4, 256)
    told = capsys.readouterr().err
    assert said in told
    assert bool(said) == bool(told)


def test_options_that_change_nothing_are_told_where_they_are_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = TrainingOptions(out="x", seed=3, micro_batch=8)
    warn_of_idle(["seed", "keep"], config, "with --frozen")
    warn_of_idle({"micro_batch": 8}, config, "with --frozen")
    assert capsys.readouterr().err == "Warning: --seed 3 changes nothing with --frozen\n"
    warn_of_idle({"micro_batch": 4}, config, "with --frozen")
    assert capsys.readouterr().err == "Warning: --micro-batch 8 changes nothing with --frozen\n"
