"""Write checkpoints on a thread of their own, while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from milan_pipeline.checkpoints import Snapshot, write_checkpoint


class CheckpointWriter:
    """At most one checkpoint is on its way to the disk; leaving the block waits for it.

    What fails on the way is raised by the next call, or on leaving.

    Args:
        run: the run folder.
        keep: checkpoints to keep.
        write: what writes one.
    """

    def __init__(
        self,
        run: Path,
        *,
        keep: int,
        write: Callable[..., object] = write_checkpoint,
    ) -> None:
        self._run = run
        self._keep = keep
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[object] | None = None

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Begin to write a snapshot, after the one before it.

        Raises:
            StorageError: the one before it could not be written.
        """
        self.wait()
        self._pending = self._thread.submit(self._write, self._run, step, snapshot, keep=self._keep)

    def wait(self) -> None:
        """Return when the latest checkpoint is on the disk.

        Raises:
            StorageError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:  # an error of the block itself says more than one of the thread
            self.wait()
