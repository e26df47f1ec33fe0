"""What Weights & Biases is told of a run; a small module stands in for theirs."""

import importlib.machinery
import json
import sys
import types
from typing import Any

import pytest

from milan_pipeline.errors import ConfigError, DataError, StorageError
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.training.run_log import RunLog

OPTIONS: dict[str, Any] = {"images": "images", "targets": "targets", "out": "run"}


class Wandb(types.ModuleType):
    """Keeps what it is told, by the rules of the real module.

    It counts steps of its own, over all parts of a run, and drops what is logged to one that is
    over. Attributes say whether a run may begin, and whether the service is away.
    """

    class Error(Exception):
        """Of the real module."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.begun: list[dict[str, Any]] = []
        self.rows: list[dict[str, float]] = []
        self.axes: dict[str, str | None] = {}
        self.ended: list[int] = []
        self.login, self.away, self._next = True, False, 0

    def init(self, **words):
        if not self.login:
            raise self.Error("no API key configured")
        self.begun.append(words)
        return types.SimpleNamespace(
            log=self.log, finish=self.finish, define_metric=self.define_metric
        )

    def define_metric(self, name, *, step_metric=None):
        self.axes[name] = step_metric

    def log(self, values, *, step=None):
        if self.away:
            raise ConnectionError("the service is away")
        at = self._next if step is None else step
        if at >= self._next:
            self.rows.append(values)
            self._next = at + 1

    def finish(self, *, exit_code):
        self.ended.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def log_steps(run, steps, *, resume_step=0):
    with RunLog(run, resume_step=resume_step, wandb="clothes") as log:
        log.write({"step": step, "loss": step / 8} for step in steps)
        log.write_scores(steps[-1], {"top1": 25.0})


def test_steps_scores_and_options_are_sent_to_the_project(wandb, tmp_path):
    document = {
        "state": "running", "content": {}, "inputs": {}, "extent": {}, "stage": "pretrain",
        "config": {"seed": 3}, "started": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    (tmp_path / "config.json").write_bytes(record_bytes(document))
    log_steps(tmp_path, [1, 2])
    assert wandb.rows == [
        {"step": 1, "loss": 0.125}, {"step": 2, "loss": 0.25}, {"step": 2, "val/top1": 25.0}
    ]  # fmt: skip
    assert wandb.axes == {"step": None, "*": "step"}
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["dir"]) == (
        "clothes", tmp_path.name, str(tmp_path)
    )  # fmt: skip
    assert begun["config"] == {"seed": 3}
    assert wandb.ended == [0]


def test_a_resumed_run_goes_on_under_its_id_and_another_has_another(wandb, tmp_path):
    for run, first in ((tmp_path / "a", 0), (tmp_path / "a", 2), (tmp_path / "b", 0)):
        run.mkdir(exist_ok=True)
        log_steps(run, [first + 1], resume_step=first)
    ids = [begun["id"] for begun in wandb.begun]
    assert ids[0] == ids[1] != ids[2]
    assert {begun["resume"] for begun in wandb.begun} == {"allow"}


def test_scores_of_a_step_that_a_later_part_of_the_run_validates_are_there(wandb, tmp_path):
    with RunLog(tmp_path, resume_step=0, wandb="clothes") as log:
        log.write([{"step": 1, "loss": 0.5}])
    with RunLog(tmp_path, resume_step=1, wandb="clothes") as log:
        log.write_scores(1, {"top1": 25.0})
        log.write([{"step": 2, "loss": 0.25}])
    assert wandb.rows == [
        {"step": 1, "loss": 0.5}, {"step": 1, "val/top1": 25.0}, {"step": 2, "loss": 0.25}
    ]  # fmt: skip


def test_a_run_that_fails_or_is_interrupted_has_not_finished_there(wandb, tmp_path):
    with pytest.raises(DataError), RunLog(tmp_path, resume_step=0, wandb="clothes"):
        raise DataError
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(StorageError):
        RunLog(tmp_path, resume_step=0, wandb="clothes")
    assert wandb.ended == [1, 1]


def test_training_goes_on_where_the_service_is_away(wandb, tmp_path, caplog):
    wandb.away = True
    log_steps(tmp_path, [1, 2])
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    (said,) = caplog.messages
    assert said.startswith("--wandb clothes gets no more of the log (the service is away); ")
    assert wandb.ended == [0]


def test_a_run_without_the_option_loads_no_wandb(wandb, tmp_path):
    with RunLog(tmp_path, resume_step=0):
        pass
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
