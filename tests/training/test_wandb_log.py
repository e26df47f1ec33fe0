"""What Weights & Biases is told of a run; a small module stands in for theirs."""

import contextlib
import importlib.machinery
import json
import sys
import types
from typing import Any

import pytest

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.training.run_folder import RunLog

OPTIONS: dict[str, Any] = {"images": "images", "targets": "targets", "out": "run"}


class Wandb(types.ModuleType):
    """Keeps what it is told; `login` says whether a run may begin."""

    class Error(Exception):
        """Of the real module."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.finished, self.login = 0, True

    def init(self, **words):
        if not self.login:
            raise self.Error("no API key configured")
        self.begun.append(words)
        return types.SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values, *, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def log_steps(run, steps, *, resume_step=0):
    with contextlib.closing(RunLog(run, resume_step=resume_step, wandb="clothes")) as log:
        log.write({"step": step, "loss": step / 8} for step in steps)
        log.write_scores(steps[-1], {"top1": 25.0})


def test_steps_scores_and_options_are_sent_to_the_project(wandb, tmp_path):
    document = {
        "state": "running", "content": {}, "inputs": {}, "extent": {}, "stage": "pretrain",
        "config": {"seed": 3}, "started": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    (tmp_path / "config.json").write_bytes(record_bytes(document))
    log_steps(tmp_path, [1, 2])
    assert wandb.rows == [(1, {"loss": 0.125}), (2, {"loss": 0.25}), (2, {"val/top1": 25.0})]
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["dir"]) == (
        "clothes", tmp_path.name, str(tmp_path)
    )  # fmt: skip
    assert begun["config"] == {"seed": 3}
    assert wandb.finished == 1


def test_a_resumed_run_goes_on_under_its_id_and_another_has_another(wandb, tmp_path):
    for run, first in ((tmp_path / "a", 0), (tmp_path / "a", 2), (tmp_path / "b", 0)):
        run.mkdir(exist_ok=True)
        log_steps(run, [first + 1], resume_step=first)
    ids = [begun["id"] for begun in wandb.begun]
    assert ids[0] == ids[1] != ids[2]
    assert {begun["resume"] for begun in wandb.begun} == {"allow"}


def test_a_run_without_the_option_loads_no_wandb(wandb, tmp_path):
    RunLog(tmp_path, resume_step=0).close()
    assert not wandb.begun


def test_what_wandb_refuses_is_one_sentence_with_what_to_do(wandb, tmp_path):
    wandb.login = False
    with pytest.raises(ConfigError, match=r"no API key configured\); run `wandb login`, set WANDB"):
        log_steps(tmp_path, [1])


def test_a_damaged_id_is_named(wandb, tmp_path):
    (tmp_path / "wandb.json").write_text(json.dumps({"id": 3}))
    with pytest.raises(DataError, match=r"wandb\.json is damaged.*delete it"):
        log_steps(tmp_path, [1])


def test_a_missing_package_is_one_sentence_before_anything_is_done(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"needs wandb.*pip install 'milan-pipeline\[wandb\]'"):
        Pretrain(**OPTIONS, wandb="clothes")
