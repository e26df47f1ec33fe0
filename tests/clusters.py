"""A Dask cluster of processes, and how to kill one of them at work."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dask
from distributed import LocalCluster, Worker, WorkerPlugin

from milan_pipeline import storage
from milan_pipeline.cluster.dask_client import UNWATCHED


class Kill(WorkerPlugin):
    """Kill one worker process, once, when it is about to write a unit's n-th object."""

    def __init__(self, flag: Path, writes: int) -> None:
        self.flag = flag
        self.writes = writes

    def setup(self, worker: Worker) -> None:
        del worker
        real = storage.put_bytes

        def put_bytes(url: str, data: bytes | memoryview) -> None:
            self.writes -= "/view-" in url
            if self.writes == 0 and not self.flag.exists():
                self.flag.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            real(url, data)

        storage.put_bytes = put_bytes


@contextlib.contextmanager
def losing_a_worker(flag: Path, writes: int) -> Iterator[str]:
    """Start two worker processes, one of which will be killed; yield the scheduler's address."""
    with (
        dask.config.set(UNWATCHED),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        cluster.get_client() as client,
    ):  # fmt: skip
        client.register_plugin(Kill(flag, writes))
        yield cluster.scheduler_address
