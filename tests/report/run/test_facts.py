"""What is told of runs: their options, and names that tell them apart."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from milan_pipeline.report.run.facts import RunReport, distinctly_named, options_of
from tests.support.runs import result


def run(folder: str) -> RunReport:
    return RunReport(
        folder=Path(folder),
        name=Path(folder).name,
        record={},
        state=None,
        history={},
        evaluations={},
        results=[],
    )


def test_runs_of_one_name_are_told_apart_by_the_end_of_their_paths() -> None:
    runs = [run("/x/a/run"), run("/x/b/run"), run("/x/b/other")]
    assert [each.name for each in distinctly_named(runs)] == ["a/run", "b/run", "other"]
    assert [each.name for each in distinctly_named([runs[0], runs[0]])] == ["run", "run"]


def test_two_results_of_one_stage_and_name_are_both_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [
        result("x", stage="segment", folder=folder, metrics={"miou": miou}, label="x")
        for folder, miou in (("linear", 1.0), ("upernet", 2.0))
    ]
    results = [
        dataclasses.replace(each, extras={"protocol": {"method": each.folder}}) for each in results
    ]
    record = {"stage": "pretrain", "content": {}, "inputs": {}}
    report = dataclasses.replace(run(str(tmp_path)), record=record, results=results)
    status = SimpleNamespace(state="done")
    monkeypatch.setattr("milan_pipeline.report.run.facts.run_status", lambda _: status)
    facts: Any = report.facts
    assert list(facts["results"].values()) == [1.0, 2.0]
    assert facts["protocols"] == {
        "segment (x, linear)": "method: linear", "segment (x, upernet)": "method: upernet",
    }  # fmt: skip


def test_the_sizes_of_a_student_follow_from_the_grid_of_several_teachers() -> None:
    identity = {"teacher": {"grid": [6, 6], "width": 4}}
    content = {"student": "vit_tiny_patch16_224", "patch_size": 10, "image_size": None}
    inputs: dict[str, Any] = {"targets": {name: {"identity": identity} for name in ("a", "b")}}
    assert options_of({"content": content, "inputs": inputs})["image_size"] == 60
