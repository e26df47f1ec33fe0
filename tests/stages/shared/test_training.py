"""Which precision and how many loader processes training takes by itself."""

from typing import Any

import pytest
import torch

from milan_pipeline.data.order import OrderConfig
from milan_pipeline.stages.shared.training import tell_of_loaders, training_precision
from milan_pipeline.stages.shared.training_options import TrainingOptions

GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "asked", "taken"),
    [
        ((7, 0), "auto", "fp32"),
        ((7, 5), "bf16", "bf16"),
        ((7, 5), "fp32", "fp32"),
        ((8, 0), "auto", "bf16"),
        ((9, 0), "bf16", "bf16"),
    ],
)
def test_bf16_where_the_gpu_has_it(
    capability: tuple[int, int],
    asked: str,
    taken: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert training_precision(asked, GPU) == taken
    assert ("--precision bf16 is slow on this GPU" in capsys.readouterr().err) is (
        asked == "bf16" and capability < (8, 0)
    )


@pytest.mark.parametrize("asked", ["auto", "fp32"])
def test_fp32_on_a_cpu(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert training_precision(asked, torch.device("cpu")) == "fp32"
    assert training_precision("bf16", torch.device("cpu")) == "bf16"
    assert not capsys.readouterr().err


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
