"""What training does by its options alone: what it refuses, its threads and loader processes."""

import dataclasses
from pathlib import Path

import pytest

from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared.training_options import TrainingOptions, run_training
from tests.options.running import config_classes


def test_a_batch_that_lanes_do_not_divide_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="--batch-size 10 is not a multiple of --lanes 4"):
        TrainingOptions(out="x", batch_size=10, lanes=4)
    assert TrainingOptions(out="x", batch_size=8, lanes=4).lanes == 4


TRAIN = """
import torch

def train(config, process):
    assert process.device.type == "cpu"
    print(torch.get_num_threads())
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_training_computes_with_the_threads_of_its_options(
    threads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "trains_nothing.py").write_text(TRAIN)
    monkeypatch.syspath_prepend(tmp_path)
    config = TrainingOptions(out=str(tmp_path), threads=threads, device="cpu")
    run_training("pretrain", config, "trains_nothing:train")
    assert capsys.readouterr().out == f"{threads}\n"


def test_auto_is_a_loader_process_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert TrainingOptions(out="x", workers="auto").loaders <= 6
    assert TrainingOptions(out="x", workers="auto", processes=6).loaders == 1
    assert TrainingOptions(out="x", workers=5).loaders == 5


def test_every_command_that_computes_has_threads() -> None:
    without = {
        command
        for command, kind in config_classes().items()
        if "threads" not in {field.name for field in dataclasses.fields(kind)}
    }
    copies_bytes = {"pack-images", "index", "import-checkpoint"}
    only_reports = {"status", "compare", "recipes", "doctor", "submit"}
    assert without == copies_bytes | only_reports
