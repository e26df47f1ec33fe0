"""The folder that was meant is found where a place within it was given."""

from pathlib import Path

import pytest

from milan_pipeline.storage import enclosing, give_enclosing


def test_the_nearest_folder_with_such_a_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints/step-1").mkdir(parents=True)
    (run / "state.json").touch()
    for place in (run / "state.json", run / "checkpoints/step-1/model", run / "{0..9}.tar"):
        assert enclosing(str(place), "other.json", "state.json") == str(run)
        assert enclosing(f"file://{place}", "state.json") == str(run)
    assert give_enclosing(str(run / "log"), "state.json") == f"it lies in {run}: give that folder"


def test_a_place_that_lies_in_none(tmp_path: Path) -> None:
    (tmp_path / "state.json").touch()
    assert enclosing(str(tmp_path), "state.json") is None
    assert enclosing("s3://bucket/run/state.json", "state.json") is None
    assert give_enclosing("name", "state.json") is None


def test_a_misspelled_place_is_no_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert enclosing("runz", "config.json") is None
    assert enclosing("runs/runz", "config.json") is None
    assert enclosing("notes", "config.json") == enclosing("view-00/x", "config.json") == "."
