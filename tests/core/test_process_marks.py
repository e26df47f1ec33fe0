"""Marks of processes: who lives, who has ended, and of whom nothing can be known here."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from milan_pipeline.core import process_marks
from milan_pipeline.core.process_marks import ProcessMark, is_alive, this_process


def test_this_process_lives() -> None:
    assert this_process().pid == os.getpid()
    assert is_alive(this_process()) is True


def test_a_process_that_ended_is_dead_even_if_its_parent_has_not_asked() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        mark = dataclasses.replace(this_process(), pid=child.pid, began=began)
        assert is_alive(mark) is True
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
        assert is_alive(mark) is False
    assert is_alive(mark) is False


def test_another_process_that_was_given_the_number_is_not_it() -> None:
    assert is_alive(dataclasses.replace(this_process(), began="1")) is False


@pytest.mark.parametrize("field", ["host", "machine"])
def test_of_another_machine_nothing_is_known(field: str) -> None:
    mark = dataclasses.asdict(this_process()) | {field: "another"}
    assert is_alive(ProcessMark(**mark)) is None


def test_without_files_of_processes_the_number_must_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_marks, "PROC", tmp_path)
    process_marks._machine.cache_clear()
    try:
        mark = this_process()
        assert (mark.began, is_alive(mark)) == ("", True)
        assert is_alive(dataclasses.replace(mark, pid=2**22)) is False
    finally:
        process_marks._machine.cache_clear()


def test_of_a_hidden_process_of_another_user_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    hidden = dataclasses.replace(this_process(), pid=2**22)
    assert is_alive(hidden) is False
    monkeypatch.setattr(os, "kill", refuse)
    assert is_alive(hidden) is None
