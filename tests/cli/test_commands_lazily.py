"""What a command runs is imported when it is called, and may be stopped."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from milan_pipeline.cli.commands import lazily

WORK = """
import torch

def plain(config):
    config.calls.append("plain")

def computing(config):
    config.calls.append(torch.get_num_threads())

def stoppable(config, stop):
    stop.raise_if_asked("nothing")
    config.calls.append(stop.signal_name)
"""


def test_a_module_is_imported_when_its_function_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work_of_a_stage.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    plain = lazily("work_of_a_stage:plain")
    stoppable = lazily("work_of_a_stage:stoppable", stoppable=True)
    assert "work_of_a_stage" not in sys.modules
    config = SimpleNamespace(calls=[])
    plain(config)
    stoppable(config)
    assert config.calls == ["plain", None]


def test_a_function_computes_with_the_threads_of_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "computing_stage.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    calls: list[int] = []
    for threads in (1, 2):
        lazily("computing_stage:computing")(SimpleNamespace(calls=calls, threads=threads))
    assert calls == [1, 2]
