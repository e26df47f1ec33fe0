"""A study of tiny students, from its YAML to its tables: whole, and killed on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.pictures import write_picture
from workflows.study.reading import read_study
from workflows.study.tasks import study_tasks

ROOT = Path(__file__).parents[2]
TINY = {
    "student": "vit_tiny_patch16_224", "patch-size": 8, "width": 32, "depth": 1, "heads": 2,
    "decoder-width": 32, "decoder-depth": 1, "decoder-heads": 2, "batch-size": 8, "workers": 0,
    "base-lr": 0.01,
}  # fmt: skip
KILLED_AFTER = (1, 3, 7)
"""Commands that are done when all processes of the study are killed."""


def write_study(folder: Path, clip: Path) -> Path:
    """Write pictures of two classes, and a study of one student on one and two views."""
    for split, count in (("train", 32), ("test", 12)):
        for number in range(count):
            write_picture(folder / split / "ab"[number % 2] / f"{number}.jpg", number)
    study = {
        "title": "A tiny study",
        "images": {split: str(folder / split) for split in ("train", "test")},
        "teacher": f"local-dir:{clip}",
        "options": {
            "extract-targets": {"precision": "fp32"},
            "pretrain": TINY,
            "probe": {"k": [5], "workers": 0},
        },
        "views": [1, "each epoch"],
        "epochs": [2],
        "students": {"MILAN": {}},
        "measures": {
            "k-NN": {"stage": "probe", "metric": "knn@5"},
            "linear": {"stage": "probe", "metric": "linear"},
        },
        "pairs": [["MILAN, 2 views", "random"]],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def start(path: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "workflows.study", str(path), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all its processes can be killed together
    )


def finish(path: Path, out: Path) -> list[str]:
    """Run a study to its end; return the tasks that it did."""
    with start(path, out) as process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    return [line for line in output.splitlines() if line.startswith("[")]


def marks(out: Path) -> list[Path]:
    """What says that tasks are done."""
    return sorted((out / "done").glob("*.json"))


@pytest.mark.slow
def test_a_study_that_is_killed_ends_with_the_same_tables(tmp_path: Path, tiny_clip: Path) -> None:
    path = write_study(tmp_path, tiny_clip)
    tasks = study_tasks(read_study(path), tmp_path / "whole")
    assert len(finish(path, tmp_path / "whole")) == len(tasks) == 10
    out = tmp_path / "killed"
    for count in KILLED_AFTER:
        with start(path, out) as process:
            assert process.stdout is not None
            for _ in process.stdout:
                if len(marks(out)) >= count:
                    break
            os.killpg(process.pid, signal.SIGKILL)
    left = len(tasks) - len(marks(out))
    assert 0 < left <= len(tasks) - KILLED_AFTER[-1]
    assert len(finish(path, out)) == left
    for name in ("study.md", "study.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert finish(path, out) == []
    found = json.loads((out / "study.json").read_text())
    assert [row["name"] for row in found["rows"]] == [
        "MILAN, 1 view", "MILAN, 2 views", "random", "teacher",
    ]  # fmt: skip
    assert all(set(row["scores"]) == {"k-NN", "linear"} for row in found["rows"])
    assert found["pairs"][0]["interval"] is not None
    assert "10 of 10" in (out / "study.html").read_text()
