"""A process with `faults.c` preloaded that has imported all stages, and forks one for each command.

    LD_PRELOAD=faults.so python -m tests.faults.file_systems.server faults.so

Each line of stdin asks for a run, each line of stdout answers, in JSON.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
from typing import Any

from milan_pipeline.cli.main import main
from tests.faults.victims import as_a_command

CONTEXT = multiprocessing.get_context("fork")


def serve(faults: ctypes.CDLL) -> None:
    """Answer until stdin ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        rules = os.fsencode(";".join(asked["rules"]))
        command = CONTEXT.Process(target=_be, args=(asked["words"], asked["log"], faults, rules))
        command.start()
        command.join(asked["patience"])
        code = command.exitcode
        if code is None:  # it hangs
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid or 0, signal.SIGKILL)
            command.join()
        sys.stdout.write(json.dumps({"code": code} | _found(faults)) + "\n")
        sys.stdout.flush()
        faults.faults_set(b"")  # their memory is that of the command


def _be(words: list[str], log: str, faults: ctypes.CDLL, rules: bytes) -> None:
    as_a_command(log)
    assert faults.faults_set(rules) >= 0, f"a rule cannot be read: {rules!r}"
    main(words)


def _found(faults: ctypes.CDLL) -> dict[str, Any]:
    rules = range(faults.faults_number())
    return {
        "counts": [faults.faults_count(rule) for rule in rules],
        "hits": [faults.faults_hits(rule) for rule in rules],
        "paths": [os.fsdecode(faults.faults_path(rule)) for rule in rules],
    }


def _library(path: str) -> ctypes.CDLL:
    faults = ctypes.CDLL(path)
    faults.faults_path.restype = ctypes.c_char_p
    faults.faults_count.restype = faults.faults_hits.restype = ctypes.c_long
    return faults


if __name__ == "__main__":
    for module in ("tests.faults.warm", "tests.faults.file_systems.warm"):
        importlib.import_module(module)
    gc.freeze()  # else each process copies the memory of what was imported
    serve(_library(sys.argv[1]))
