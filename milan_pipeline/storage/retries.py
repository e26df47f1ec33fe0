"""Try again what fails for a temporary reason, at growing intervals; then raise our error."""

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from milan_pipeline.core.console import NOTE
from milan_pipeline.errors import MilanError, StorageError, TruncatedError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

TRIES = 13
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds; doubled after each try. All together they wait for two minutes."""
TOLD = 4
"""The try of which users are told, after some seconds without a word."""
TRIES_OF_SHORT_READS = 5
"""Most often, a file that ends early stays so."""

TEMPORARY_LOCAL = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""Errors of network file systems while their server cannot be reached."""

LASTING = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ValueError, TypeError, NotImplementedError, ImportError),
)
"""Errors of remote stores that come again when asked again."""

LASTING_NUMBERS = (errno.EINVAL, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSYS, errno.EMSGSIZE)
"""Likewise: s3fs raises these where the store rejects a request."""

NO_CREDENTIALS = (
    *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"),
    *("UnauthorizedSSOTokenError", "SSOTokenLoadError", "DefaultCredentialsError"),
)
"""Errors of botocore and google.auth, which we do not import."""

WRONG_REQUESTS = ("ParamValidationError", "InvalidURL", "ConfigParseError")
"""Errors of botocore and aiohttp where a URL or a configuration file is none that they can use."""

TIMEOUT_STATUS = (408, 429)
REFUSAL_STATUS = (401, 403)


def retried(
    action: Callable[[], ResultT], *, url: str, local: bool, doing: str = "read"
) -> ResultT:
    """Call `action` until it returns, `TRIES` times at most; lasting errors are raised at once.

    Args:
        action: reads from or writes to `url`, all anew each time.
        url: for the message.
        local: whether `url` is a file: few errors of files are temporary, most of stores are.
        doing: for the message: "read" or "written".

    Raises:
        TruncatedError: it was raised `TRIES_OF_SHORT_READS` times.
        StorageError: the last try failed like those before it.
    """
    is_temporary = _is_temporary_local if local else _is_temporary_remote
    attempts = tenacity.Retrying(
        stop=_has_tried_enough,
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception(is_temporary),
        sleep=_wait,
        before_sleep=_log_failure(url),
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
            f"{url} cannot be {doing}: {TRIES} tries failed ({reason}); check the network or the "
            "store that it lies in, and run the same command again"
        ) from last


def _log_failure(url: str) -> Callable[[tenacity.RetryCallState], None]:
    def log(state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        message = "%s: try %d of %d failed (%s); trying again"
        level = NOTE if state.attempt_number == TOLD else logging.INFO
        logger.log(level, message, url, state.attempt_number, TRIES, error)

    return log


def _wait(seconds: float) -> None:
    time.sleep(seconds)


def _has_tried_enough(state: tenacity.RetryCallState) -> bool:
    short = state.outcome is not None and isinstance(state.outcome.exception(), TruncatedError)
    return state.attempt_number >= (TRIES_OF_SHORT_READS if short else TRIES)


def _is_temporary_local(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TEMPORARY_LOCAL


def _is_temporary_remote(error: BaseException) -> bool:
    """Tell whether an error is temporary; clients raise errors of their own, not only `OSError`."""
    if isinstance(error, TruncatedError):
        return True
    if isinstance(error, (MilanError, *LASTING)) or not isinstance(error, Exception):
        return False
    if lacks_credentials(error) or is_refusal(error) or type(error).__name__ in WRONG_REQUESTS:
        return False
    if isinstance(error, OSError) and error.errno in LASTING_NUMBERS:
        return False
    status = _status(error)
    return status is None or not 400 <= status < 500 or status in TIMEOUT_STATUS


def lacks_credentials(error: BaseException) -> bool:
    """Tell whether a client found no usable credentials."""
    return type(error).__name__ in NO_CREDENTIALS


def is_refusal(error: BaseException) -> bool:
    """Tell whether a store denies access to the caller."""
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden")  # gcsfs
    return isinstance(error, PermissionError) or forbidden or _status(error) in REFUSAL_STATUS


def _status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of aiohttp or gcsfs; None where there is none."""
    for name in ("status", "code"):
        status = getattr(error, name, None)
        if isinstance(status, int):
            return status
        if isinstance(status, str) and status.isdigit():
            return int(status)
    return None
