"""What is told of runs: their options, and names that tell them apart."""

from pathlib import Path
from typing import Any

from milan_pipeline.report.run.facts import RunReport, distinctly_named, options_of


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


def test_the_sizes_of_a_student_follow_from_the_grid_of_several_teachers() -> None:
    identity = {"teacher": {"grid": [6, 6], "width": 4}}
    content = {"student": "vit_tiny_patch16_224", "patch_size": 10, "image_size": None}
    inputs: dict[str, Any] = {"targets": {name: {"identity": identity} for name in ("a", "b")}}
    assert options_of({"content": content, "inputs": inputs})["image_size"] == 60
