"""Kill a stage at a chosen write: from then on, nothing more reaches the disk."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from milan_pipeline import storage
from milan_pipeline.cli.main import main


class Killed(BaseException):
    """No handler of the program may catch it."""


def run_and_kill(writes: int, *words: object) -> bool:
    """Run a command in this process and let it write so many files; tell whether it was killed."""
    done = 0
    real = storage.atomic_writer

    @contextlib.contextmanager
    def counted(url: str) -> Iterator[BinaryIO]:
        nonlocal done
        done += 1
        if done > writes:
            raise Killed
        with real(url) as stream:
            yield stream

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "atomic_writer", counted)
        try:
            main([str(word) for word in words])
        except Killed:
            return True
    return False


def files_without(folder: Path, *names: str) -> dict[str, Any]:
    """Every file's bytes by path, those of the given names (records, which hold times) aside.

    Progress reports hold times as well, and are left out of every folder.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in names and path.parent != folder / "progress"
    }
