"""A bar is one line on a terminal of any width, and nothing elsewhere."""

import contextlib
import fcntl
import os
import re
import struct
import sys
import termios

import pytest

from milan_pipeline.core import console
from milan_pipeline.core.console import Verbosity, output, progress_bar


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
    heard = bytearray()
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while part := os.read(ours, 1 << 16):
            heard += part
    os.close(ours)
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


def test_no_bar_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("extract-targets", total=10) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""
