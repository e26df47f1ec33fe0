"""The few exception classes; each also subclasses a builtin, so that callers need not import us.

A message is one sentence that names the option or file, the value, and the remedy.
"""


class MilanError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(MilanError, ValueError):
    """An option or configuration value is wrong, or two of them do not fit together."""


class DataError(MilanError, ValueError):
    """Bytes that were read are not what they must be: corrupt, truncated or of another format."""


class BadImageError(DataError):
    """One image cannot be decoded; the sample is skipped and listed in the ledger."""


class MissingDataError(MilanError, LookupError):
    """Something that should be there is not: a manifest, a unit, a target, a key."""


class MismatchError(MilanError, ValueError):
    """Two things that must agree do not: targets and run, store and options, image and digest."""


class StorageError(MilanError, OSError):
    """A place that data is read from or written to failed or is not allowed."""


class TruncatedError(StorageError):
    """A file ends before the bytes that were to be read."""


class InterruptedRunError(MilanError, RuntimeError):
    """The stage was asked to stop (Ctrl-C, SIGTERM, SIGUSR1), and did so where it can resume."""


def reason_of(error: BaseException) -> str:
    """Return another library's message in one line, or the name of its class where it has none.

    Of a failed system call, it is the reason alone, since the caller names the file.
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
