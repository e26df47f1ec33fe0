"""Which precision training takes by itself."""

import pytest
import torch

from milan_pipeline.stages.shared.training import training_precision

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
