"""A run keeps the length of its schedule, and whoever asks for another is told what to do."""

from pathlib import Path

import pytest

from milan_pipeline.errors import MismatchError
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.shared.schedule import require_same_epochs
from milan_pipeline.stages.shared.training import with_frozen_choices

REMEDIES = [
    ("pretrain", "done", 30, "for more, give another --out and --init runs/a: a new schedule"),
    ("pretrain", "done", 2, "falls; give another --out$"),
    ("finetune", "done", 30, "falls; give another --out$"),
    ("pretrain", "running", 30, "give --epochs 20 to go on, or another --out$"),
    ("pretrain", "running", 2, "give --epochs 20 to go on, with --max-steps to stop earlier, or"),
]


@pytest.mark.parametrize(("stage", "state", "epochs", "remedy"), REMEDIES)
def test_another_length_is_refused_with_a_remedy(stage, state, epochs, remedy) -> None:
    previous = {"stage": stage, "state": state, "content": {"epochs": 20}}
    with pytest.raises(MismatchError, match=f"--epochs {epochs} does not fit runs/a, .*{remedy}"):
        require_same_epochs("runs/a", epochs, previous)


@pytest.mark.parametrize("content", [{}, {"epochs": 20}, {"epochs": None}])
def test_what_does_not_differ_goes_on(content) -> None:
    require_same_epochs("runs/a", 20, {"content": content} | {"stage": "pretrain"})


def test_fewer_epochs_than_the_warm_up_that_a_run_chose(tmp_path: Path) -> None:
    """What is wrong are the epochs: nobody gave the warm-up."""
    record = {
        "stage": "pretrain",
        "state": "done",
        "started": "2026-01-01T00:00:00Z",
        "content": {"epochs": 20, "warmup_epochs": 2.0},
        "inputs": {},
        "config": {},
        "extent": {},
    }
    (tmp_path / "config.json").write_bytes(record_bytes(record))
    config = Pretrain(images="i", targets=("t",), out=str(tmp_path), epochs=2)
    with pytest.raises(MismatchError, match=r"--epochs 2 does not fit .*, a run of 20 epochs"):
        with_frozen_choices("pretrain", config, "warmup_epochs")
    with pytest.raises(MismatchError, match="holds the output of `pretrain`, not of `finetune`"):
        with_frozen_choices("finetune", config)
