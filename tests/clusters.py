"""A Dask cluster's workers that are killed at work."""

import os
import signal
from pathlib import Path

from distributed import Worker, WorkerPlugin

from milan_pipeline import storage


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
