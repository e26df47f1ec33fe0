"""Run a function in several processes that form one world, as torchrun would set them up.

They are forked from a server that has imported torch once, but never computed anything.
"""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from milan_pipeline.cluster.world import joined_world

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.small_run"])
PATIENCE = 120.0


def run_world(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call `function(world, *arguments)` in each of `size` processes; return what each returned.

    What one raises, it returns; a process that dies silently is an error here.
    """
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
