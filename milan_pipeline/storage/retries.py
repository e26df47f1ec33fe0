"""What fails for a passing reason is tried again, ever later, and then fails by name."""

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from milan_pipeline.errors import MilanError, StorageError, TruncatedError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

TRIES = 13
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds; doubled after each try. All together they wait for two minutes."""
TRIES_OF_SHORT_READS = 5
"""A file that ends early most often stays so."""

PASSING_LOCAL = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What network file systems say while their server is away."""

LASTING = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ValueError, TypeError, NotImplementedError, ImportError),
)
"""What asking a remote store again will not mend."""

LASTING_NUMBERS = (errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSYS, errno.EMSGSIZE)
"""Likewise: what s3fs calls a request that its store finds wrong."""

WANT_OF_CREDENTIALS = (
    *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"),
    *("UnauthorizedSSOTokenError", "SSOTokenLoadError", "DefaultCredentialsError"),
)
"""Errors of botocore and google.auth, which we do not import."""

TIMEOUT_STATUS = (408, 429)
REFUSAL_STATUS = (401, 403)


def retried(
    action: Callable[[], ResultT], *, url: str, local: bool, doing: str = "read"
) -> ResultT:
    """Call `action` until it returns, `TRIES` times at most; errors that last pass through.

    Args:
        action: reads from or writes to `url`, all anew each time.
        url: for the message.
        local: whether `url` is a file: of its errors few pass, of a remote store's most.
        doing: for the message: "read" or "written".

    Raises:
        TruncatedError: it was raised `TRIES_OF_SHORT_READS` times.
        StorageError: the last try failed like those before it.
    """
    passes = _passes_local if local else _passes_remote
    attempts = tenacity.Retrying(
        stop=_has_tried_enough,
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception(passes),
        sleep=_wait,
        before_sleep=_say_what_failed(url),
    )
    logger.debug("%s is being %s", url, doing)
    try:
        return attempts(action)
    except tenacity.RetryError as error:
        last = error.last_attempt.exception()
        if isinstance(last, TruncatedError):
            raise last from None
        reason = " ".join(str(last).split()) or type(last).__name__
        raise StorageError(
            f"{url} cannot be {doing}, {TRIES} times over ({reason}); check the network or the "
            "store that it lies in, and run the same command again"
        ) from last


def _say_what_failed(url: str) -> Callable[[tenacity.RetryCallState], None]:
    def log(state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        said = "%s: try %d of %d failed (%s); trying again"
        logger.info(said, url, state.attempt_number, TRIES, error)

    return log


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _has_tried_enough(state: tenacity.RetryCallState) -> bool:
    short = state.outcome is not None and isinstance(state.outcome.exception(), TruncatedError)
    return state.attempt_number >= (TRIES_OF_SHORT_READS if short else TRIES)


def _passes_local(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in PASSING_LOCAL


def _passes_remote(error: BaseException) -> bool:
    """Tell what may pass: remote stores raise errors of their clients, not only `OSError`."""
    if isinstance(error, TruncatedError):
        return True
    if isinstance(error, (MilanError, *LASTING)) or not isinstance(error, Exception):
        return False
    if lacks_credentials(error) or is_refusal(error):
        return False
    if isinstance(error, OSError) and error.errno in LASTING_NUMBERS:
        return False
    status = _status(error)
    return status is None or not 400 <= status < 500 or status in TIMEOUT_STATUS


def lacks_credentials(error: BaseException) -> bool:
    """Tell whether a client found no usable credentials."""
    return type(error).__name__ in WANT_OF_CREDENTIALS


def is_refusal(error: BaseException) -> bool:
    """Tell whether a store knows the caller's name, but does not let it in."""
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden")  # gcsfs
    return isinstance(error, PermissionError) or forbidden or _status(error) in REFUSAL_STATUS


def _status(error: BaseException) -> int | None:
    """Return the status of an HTTP answer that an error tells of, as aiohttp or gcsfs has it."""
    for name in ("status", "code"):
        status = getattr(error, name, None)
        if isinstance(status, int):
            return status
        if isinstance(status, str) and status.isdigit():
            return int(status)
    return None
