"""Explain the death of a loader process; imports no torch."""

import contextlib
from collections.abc import Iterator

from milan_pipeline.errors import StorageError

MORE_SHARED_MEMORY = (
    "give --workers 0, or more shared memory (in a container --shm-size), and run the same command "
    "again"
)
READING = (RuntimeError, ConnectionError, EOFError)
"""What reading a batch may raise when the loader process that sends it dies."""


@contextlib.contextmanager
def explained_worker_deaths(
    kinds: tuple[type[Exception], ...] = (RuntimeError,),
) -> Iterator[None]:
    """Explain the death of a loader process.

    torch's signal handler raises it at any line of the program, even of code that is already
    handling a failed read. So whole stages run in this block, and training also runs in one that
    takes failed reads.

    Args:
        kinds: errors to explain; RuntimeErrors only where they are torch's about a loader process.

    Raises:
        StorageError: a loader process was killed.
    """
    try:
        yield
    except kinds as error:
        # This is an error that a living process has sent, with its traceback.
        if "in DataLoader worker process" in str(error):
            raise
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        what = f"a loader process died ({' '.join(str(error).split())})"
        if "Bus error" in str(error):  # how the system says that a page of /dev/shm has no room
            raise StorageError(f"{what}: /dev/shm is full; {MORE_SHARED_MEMORY}") from error
        raise StorageError(
            f"{what}, most often since memory is full; give fewer --workers or more memory, and "
            "run the same command again"
        ) from error
