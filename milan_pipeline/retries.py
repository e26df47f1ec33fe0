"""A read that fails for a passing reason is tried again, ever later, and then fails by name."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from milan_pipeline.errors import MilanError, StorageError

ResultT = TypeVar("ResultT")

TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds; doubled after each try

PASSING_LOCAL = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What network file systems say while their server is away."""

LASTING = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ValueError, TypeError, NotImplementedError, ImportError),
)
"""What asking a remote store again will not mend."""

TIMEOUT_STATUS = (408, 429)


def retried(read: Callable[[], ResultT], *, url: str, local: bool) -> ResultT:
    """Call `read` until it returns, `TRIES` times at most; errors that will last pass through.

    Args:
        read: reads from `url`.
        url: for the message.
        local: whether `url` is a file: of its errors few pass, of a remote store's most.

    Raises:
        StorageError: the last try failed like those before it.
    """
    passes = _passes_local if local else _passes_remote
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception(passes),
        sleep=_wait,
    )
    try:
        return attempts(read)
    except tenacity.RetryError as error:
        last = error.last_attempt.exception()
        reason = " ".join(str(last).split()) or type(last).__name__
        raise StorageError(
            f"{url} cannot be read, {TRIES} times over ({reason}); check the network or the store "
            "that it lies in, and run the same command again"
        ) from last


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _passes_local(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in PASSING_LOCAL


def _passes_remote(error: BaseException) -> bool:
    """Tell what may pass: remote stores raise errors of their clients, not only `OSError`."""
    if isinstance(error, (MilanError, *LASTING)) or not isinstance(error, Exception):
        return False
    status = getattr(error, "status", None)  # of an HTTP answer
    refused = isinstance(status, int) and 400 <= status < 500
    return not refused or status in TIMEOUT_STATUS
