"""Run a function in several processes that form one world, as torchrun would set them up.

They are forked from a server that has imported torch once, but never computed anything.

Watch a process that trains, from outside.
"""

import json
import multiprocessing
import os
import socket
import subprocess
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from milan_pipeline.cluster.world import joined_world

CONTEXT = multiprocessing.get_context("forkserver")


PATIENCE = 120.0


def run_world(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call `function(world, *arguments)` in each of `size` processes; return what each returned.

    What one raises, it returns; a process that dies silently is an error here.
    """
    # Not at import: there is one server, and other tests preload other modules.
    CONTEXT.set_forkserver_preload(["tests.support.runs"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = []
    for rank in range(size):
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(theirs, rank, variables, function, arguments))
        process.start()
        theirs.close()
        started.append((process, ours))
    results = []
    for process, ours in started:
        assert ours.poll(PATIENCE), "a process hangs"
        results.append(ours.recv())
        process.join(PATIENCE)
    return results


def _work(connection: Connection, rank, variables, function, arguments):
    os.environ |= variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    try:
        with joined_world(torch.device("cpu")) as world:
            result = function(world, *arguments)
    except Exception as error:  # noqa: BLE001 - the test decides what may go wrong
        traceback.print_exc()
        result = error
    connection.send(result)


POLL = 0.01
GIVE_UP = 600.0
"""Seconds that a process may take on a busy machine."""


def ended(process: subprocess.Popen[str], seconds: float) -> bool:
    """Wait so long for a process to end; tell whether it has."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def logged(run: Path) -> list[dict[str, Any]]:
    """Read the steps that a run has logged so far."""
    path = Path(run) / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def children(pid: int) -> list[int]:
    """Return a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def files_without(folder: Path, *names: str) -> dict[str, Any]:
    """Every file's bytes by path, those of the given names (records, which hold times) aside.

    Progress reports hold times as well, and are left out of every folder.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in names and path.parent != folder / "progress"
    }


def elsewhere(report: Path) -> None:
    """Have a progress report come from a process of another machine."""
    document = json.loads(report.read_text())
    document["process"]["host"] = "another"
    report.write_text(json.dumps(document))


def killed(report: Path) -> None:
    """Have a progress report come from a process of this machine that has ended."""
    document = json.loads(report.read_text())
    document["process"]["began"] = "0"
    report.write_text(json.dumps(document))
