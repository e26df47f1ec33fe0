"""doctor prints a row for each thing, and what helps below it."""

from pathlib import Path

import pytest

from milan_pipeline.stages.doctor.report import document_of, examined, lines_of
from milan_pipeline.stages.doctor.rows import Row
from tests.support.cli import configured

NAMES = ["GPU", "precision", "cores", "load", "threads", "shared memory", "disk"]
ROWS = [
    Row(name="cores", found="2 of 2", facts={"usable": 2}),
    Row(name="disk", state="look", found="slow", remedy="--cache FOLDER"),
]


def test_lines() -> None:
    assert list(lines_of(ROWS)) == [
        "ok    cores  2 of 2",
        "look  disk   slow",
        "             set: --cache FOLDER",
    ]


def test_a_document() -> None:
    found = document_of(ROWS)
    assert found["state"] == "look"
    assert [row["state"] for row in found["rows"]] == ["ok", "look"]
    assert found["rows"][0]["facts"] == {"usable": 2}


@pytest.mark.parametrize("hub", [True, False])
def test_everything_is_looked_at(
    tmp_path: Path, hub: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = configured("doctor", str(tmp_path), *([] if hub else ["--no-hub"]))
    names = [row.name for row in examined(config, disk_bytes=1000)]
    assert names[: len(NAMES)] == NAMES
    assert names[len(NAMES) :] == ["hub"] * hub
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_yet_is_told_to_be_made(tmp_path: Path) -> None:
    config = configured("doctor", str(tmp_path / "data"), "--no-hub")
    (row,) = (row for row in examined(config, disk_bytes=1000) if row.name == "disk")
    assert row.remedy.startswith(f"mkdir -p {tmp_path / 'data'}")
    config = configured("doctor", f"file://{tmp_path}", "--no-hub")
    (row,) = (row for row in examined(config, disk_bytes=1000) if row.name == "disk")
    assert not row.remedy.startswith("mkdir")
