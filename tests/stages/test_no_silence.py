"""A command that may take long shows that it works, also in a log."""

import itertools
import threading
import types
from pathlib import Path

import pytest

from milan_pipeline.core import progress
from milan_pipeline.planning.teacher_speed import TeacherSpeed
from milan_pipeline.stages.plan.report import PlanReport
from tests.support.cli import configured, run_cli
from tests.support.pictures import write_picture

Captured = pytest.CaptureFixture[str]


class TicksTwice(threading.Event):
    """Has a clock look at the time twice, at once."""

    looks = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Tell whether the block has ended: yes, from the third time on."""
        del timeout
        self.looks += 1
        return self.looks > 2


@pytest.fixture(autouse=True)
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have half a minute and a second pass each time that a bar looks at the clock."""
    passed = itertools.count(step=31)
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: next(passed)))
    monkeypatch.setattr(progress, "TICK", 0)
    events = types.SimpleNamespace(Event=TicksTwice, Thread=threading.Thread)
    monkeypatch.setattr(progress, "threading", events)


def test_inspect(target_store: Path, tmp_path: Path, capsys: Captured) -> None:
    capsys.readouterr()
    run_cli("inspect", target_store, "--html", tmp_path / "page.html")
    said = capsys.readouterr().err
    assert "inspect: reading: 00:" in said
    assert "inspect: drawing the page: 00:" in said


def test_index(tmp_path: Path, capsys: Captured) -> None:
    for number in range(2):
        write_picture(tmp_path / "in" / f"{number}.jpg", number, (8, 8))
    run_cli("pack-images", tmp_path / "in", tmp_path / "out", "--samples-per-shard", 1)
    for path in tmp_path.glob("out/*.json"):
        path.unlink()
    capsys.readouterr()
    run_cli("index", *sorted(tmp_path.glob("out/*.tar")))
    assert "index: 2 of 2 tars" in capsys.readouterr().err


def test_timing_a_teacher(tiny_clip: Path, capsys: Captured) -> None:
    words = ("--samples", "5", "--teacher", f"local-dir:{tiny_clip}", "--measure")
    speed = TeacherSpeed(precision="fp32", batch=1, rate=1.0, cosine=1.0)
    PlanReport(configured("plan", *words), measure=lambda *_, **__: iter([speed]))
    assert "plan: timing the teacher: 00:" in capsys.readouterr().err
