"""`compare` on written results, through the command line."""

import dataclasses
import json
import os
import sys

import pytest

from milan_pipeline.evaluate.scores_file import write_scores
from tests.support.cli import NO_HEAVY_IMPORTS, run_cli
from tests.support.runs import result


@pytest.fixture
def project(tmp_path):
    """Return a folder with results of two runs, probed, and one of them fine-tuned."""
    given = [
        result("runs/a", label="MILAN", metrics={"knn@20": 70.0}),
        result("runs/b", label="MILAN", metrics={"knn@20": 72.0}),
        result("runs/a", stage="finetune", metrics={"top1": 80.0}),
    ]
    for found in given:
        write_scores(dataclasses.replace(found, folder=str(tmp_path / found.folder)))
    return tmp_path


def test_one_table_of_all(project, capsys, monkeypatch):
    monkeypatch.chdir(project)  # folders are shown from there if that is shorter
    run_cli("compare", str(project))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| encoder | stage | seed | knn@20 | top1 | folder |"
    assert len(lines) == 5
    assert lines[4] == "| runs/a | finetune | 0 |  | 80.00 | runs/a/finetune/0 |"
    run_cli("compare", str(project), "--hashes")
    assert " | config | folder |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        (40, "encoder  MILAN"),
        (60, "| encoder | stage | seed | knn@20 | top1 |\n"),
        (400, "| encoder | stage | seed | knn@20 | top1 | folder |\n"),
    ],
)
def test_a_terminal_too_narrow_has_rows_below_each_other(
    project, capsys, monkeypatch, columns, first
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    run_cli("compare", str(project))
    assert capsys.readouterr().out.startswith(first)


def test_means_over_seeds(project, capsys):
    run_cli("compare", str(project), "--over-seeds")
    assert "| MILAN | probe | 0 | 71.00 ± 1.41 (2) |  |" in capsys.readouterr().out


def test_json_goes_to_a_file_too(project, capsys):
    out = project / "tables" / "all.json"
    run_cli("compare", str(project / "runs/a"), "--json", "--out", str(out))
    text = capsys.readouterr().out
    assert out.read_text() == text
    assert [row["metrics"] for row in json.loads(text)] == [{"knn@20": 70}, {"top1": 80}]


def test_a_folder_without_results_is_an_error(project, capsys):
    (project / "empty").mkdir()
    run_cli("compare", str(project), str(project / "empty"), code=1)
    assert "empty holds no scores.json" in capsys.readouterr().err


def test_comparing_imports_nothing_heavy(project):
    import subprocess

    command = [sys.executable, "-c", NO_HEAVY_IMPORTS, "compare", str(project)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "| MILAN | probe |" in done.stdout


def test_a_table_names_a_folder_that_is_not_utf8(project, capsys):
    old = project / os.fsdecode(b"runs/caf\xe9")
    (project / "runs" / "a").rename(old)
    run_cli("compare", str(project), "--out", str(project / "table.md"))
    assert rb"runs/caf\udce9/finetune/0" in (project / "table.md").read_bytes()


def test_a_folder_with_a_line_break_in_its_name_keeps_its_row_whole(project, capsys):
    (project / "runs/a").rename(project / "runs/a\n| b |")
    run_cli("compare", project)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert any(r"runs/a\n\| b \|/finetune/0" in line for line in lines)


def test_a_folder_that_cannot_be_listed_is_an_error(project, capsys, monkeypatch):
    """Without it, the table would lack its results."""
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("runs/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    run_cli("compare", str(project), code=1)
    error = capsys.readouterr().err
    assert (
        f"{project}/runs/b cannot be listed (Permission denied); check who may access it\n" in error
    )


def test_what_is_said_below_the_table_fits_100_columns(tmp_path, capsys):
    for name, score in (("a", 70.0), ("b", 71.0)):
        found = result(name, label=name * 60, metrics={"knn@20": score}, inputs={"test": "f00d"})
        interval = {"knn@20": (score - 5, score + 5)}
        write_scores(dataclasses.replace(found, folder=str(tmp_path / name), intervals=interval))
    run_cli("compare", str(tmp_path))
    said = capsys.readouterr().out.split("\n\n", 1)[1]
    assert max(map(len, said.splitlines())) <= 100
    assert "do not differ (95% interval" in " ".join(said.split())
