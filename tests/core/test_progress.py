"""A bar is one line on a terminal of any width, and in a log a line a minute."""

import contextlib
import fcntl
import io
import os
import re
import struct
import sys
import termios
import threading
import types
from collections.abc import Callable

import pytest

from milan_pipeline.core import console, progress
from milan_pipeline.core.console import Verbosity, output
from milan_pipeline.core.progress import progress_bar, waiting


def seen(monkeypatch: pytest.MonkeyPatch, columns: int, verbosity: Verbosity) -> str:
    """Return what a terminal of some width is sent by a bar of a long run with a note in it."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w") as terminal, output(verbosity):
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar("extract-targets", total=1_281_167) as bar:
            bar.update(4096)
            bar.refresh()
            console.note("a note in between")
    return all_of(ours)


def all_of(terminal: int) -> str:
    """Return what a terminal was sent, once nothing more is."""
    heard = bytearray()
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while part := os.read(terminal, 1 << 16):
            heard += part
    os.close(terminal)
    return heard.decode()


@pytest.mark.parametrize("columns", [200, 80, 40, 20])
def test_a_bar_is_one_line(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    text = seen(monkeypatch, columns, Verbosity.NORMAL)
    drawn = re.split(r"[\r\n]+", text)
    assert max(map(len, drawn)) <= columns
    assert sum(line.strip() == "a note in between" for line in drawn) == 1
    assert text.count("\n") == 2  # the note's, and the bar's own at its end
    if columns >= 80:
        assert re.search(r"extract-targets:   0%\|.+\| 4096/1281167 \[.+<.+, .+ images/s\]", text)


def test_quiet_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, 80, Verbosity.QUIET) == ""


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have a bar's clock go on by minutes."""
    now = [0.0]
    clock = types.SimpleNamespace(monotonic=lambda: 60 * now[0])
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "TICK", 0)
    return lambda passed: now.__setitem__(0, now[0] + passed)


def test_a_log_has_a_line_a_minute(
    minutes: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("pack-images", total=100) as bar:
        for _ in range(10):
            minutes(0.5)
            bar.update(10)
            console.note("another line")
    said = [line for line in capsys.readouterr().err.splitlines() if line != "another line"]
    assert len(said) == 6  # one each two updates, and one at the end
    assert said[0].startswith("pack-images: 20 of 100 images, ")
    assert re.fullmatch(
        r"pack-images: 100 of 100 images, .* images/s, \d\d:\d\d so far, \d\d:\d\d left", said[-1]
    )


def test_a_line_of_one_bar_writes_none_of_the_others(
    minutes: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each look at the clock takes a minute, so that every bar has a line to write at any time."""
    with progress_bar("first", total=10) as bar, progress_bar("second", total=10):
        clock = iter(range(1, 50))
        passing = types.SimpleNamespace(monotonic=lambda: 60 * next(clock))
        monkeypatch.setattr(progress, "time", passing)
        bar.refresh()
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_wait_has_a_clock_in_a_log_too(
    minutes: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting("probe: k-NN"):
        pass
    assert capsys.readouterr().err == ""
    bar = progress._bar("probe: k-NN", (progress.CLOCK, progress.CLOCK), True)
    minutes(1)
    bar.refresh()
    bar.refresh()
    assert re.fullmatch(r"probe: k-NN: \d\d:\d\d\n", capsys.readouterr().err)
    bar.close()


def test_a_clock_ticks_on_a_terminal_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ticks once, at once, and no more until the block ends."""
    ticked = threading.Event()

    class OneTick(threading.Event):
        looks = 0

        def wait(self, timeout: float | None = None) -> bool:
            del timeout
            self.looks += 1
            if self.looks == 1:
                return False
            ticked.set()
            return super().wait()

    threads = types.SimpleNamespace(Event=OneTick, Thread=threading.Thread)
    monkeypatch.setattr(progress, "threading", threads)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with waiting("loading libraries"):
            assert ticked.wait(60)
    drawn = all_of(ours).split("\r")
    assert re.fullmatch(r"loading libraries: \d\d:\d\d *", drawn[1])
    assert drawn[-2].strip() == drawn[-1] == ""  # blanks over it, and back to the start


def test_no_bar_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("extract-targets", total=10) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


class NotebookStream(io.StringIO):
    """Standard error as a notebook has it: no terminal, but lines are redrawn in the cell."""


NotebookStream.__module__ = "ipykernel.iostream"


def test_a_notebook_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = NotebookStream()
    monkeypatch.setattr(sys, "stderr", cell)
    with progress_bar("extract-targets", total=10) as bar:
        bar.update(10)
    assert re.search(r"\rextract-targets: 100%\|.+\| 10/10 \[.+ images/s\]", cell.getvalue())
