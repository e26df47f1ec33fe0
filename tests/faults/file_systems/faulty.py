"""Run commands where calls to the file system fail as rules say (`faults.c`)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.victims import Words

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name("faults.c")
PATIENCE = 300.0
"""Seconds after which a command hangs."""
BUSY = "Warning: other programs use this machine's"
HURRY = "hurry 200"
"""Waits between tries would take two minutes."""


class Outcome(NamedTuple):
    """What became of a command.

    Attributes:
        code: its exit code; None: it hung, and was killed.
        said: what it wrote to stdout and stderr.
        counts: how many calls each rule was of.
        hits: how many of them failed.
        paths: of the first that failed.
    """

    code: int | None
    said: str
    counts: list[int]
    hits: list[int]
    paths: list[str]

    @property
    def error(self) -> str:
        """The sentence that it ended with; empty where there is none."""
        lines = [line for line in self.said.splitlines() if line.startswith("Error: ")]
        return lines[-1] if lines else ""


class FaultyDisk:
    """A server of commands, each of which may have rules of its own."""

    def __init__(self, folder: Path) -> None:
        """Compile the library and start the server.

        Args:
            folder: an empty one, for the library and what commands say; no rule is of it.
        """
        self._folder = folder
        self._log = folder / "log.txt"
        library = str(folder / "faults.so")
        compiler = shutil.which("cc")
        assert compiler, "no C compiler"
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", library, str(SOURCE), "-ldl"], check=True
        )
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.file_systems.server", library],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"LD_PRELOAD": library},
        )  # fmt: skip

    def run(self, words: Words, *rules: str, patience: float = PATIENCE) -> Outcome:
        """Run a command to its end, under rules."""
        self._log.unlink(missing_ok=True)
        asked: dict[str, Any] = {"words": [str(word) for word in words], "log": str(self._log)}
        asked |= {"rules": [HURRY, *rules], "patience": patience}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        said = self._log.read_text(errors="surrogateescape")
        # What else the machine does is no matter of its disks.
        said = "".join(line for line in said.splitlines(keepends=True) if BUSY not in line)
        return Outcome(answer["code"], said, answer["counts"], answer["hits"], answer["paths"])

    def done(self, words: Words) -> str:
        """Run a command undisturbed; return what it says."""
        outcome = self.run(words)
        assert outcome.code == 0, outcome.said
        return outcome.said

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()


def has_compiler() -> bool:
    """Tell whether the library can be made: of Linux, with a C compiler."""
    return sys.platform == "linux" and shutil.which("cc") is not None
