"""Run pytest again and again, each time in a fork of this process, which has loaded libraries.

A script for `trials.py`: reads pytest's words as a line of JSON, writes its exit code as a line. To
load torch, timm and the like takes longer than most files of tests. Nothing of ours is loaded here.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest


def main(output: Path, libraries: list[str]) -> None:
    """Serve until the input ends; what pytest writes goes to a file, anew each time."""
    for name in libraries:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            code = pytest.main(json.loads(line))
            sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
