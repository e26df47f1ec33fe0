"""What is wrong with a file or folder of images, in words that fit into a sentence."""

import errno
import os
from pathlib import Path

from milan_pipeline.errors import StorageError
from milan_pipeline.storage.retries import TEMPORARY_LOCAL, retried

NOWHERE = (errno.ENOENT, errno.ENOTDIR)
DENIED = (errno.EACCES, errno.EPERM)


def status_of(path: str) -> os.stat_result:
    """Look at a file, again where the disk fails for a while; raises `OSError`."""
    try:
        return os.stat(path)  # noqa: PTH116 - to prepare for retries takes longer
    except OSError as error:
        if error.errno not in TEMPORARY_LOCAL:
            raise
    return retried(lambda: os.stat(path), url=path, local=True)  # noqa: PTH116


def is_link(path: str | Path) -> bool:
    """Tell whether something is a link; unlike `Path.is_symlink`, false where it cannot be told."""
    return os.path.islink(path)  # noqa: PTH114


def fault_of(path: str, error: OSError) -> str:
    """Say why a file cannot be looked at, in words that fit behind "it is"."""
    if not is_link(path):
        return f"no longer there ({error.strerror})"
    target = os.readlink(path)  # noqa: PTH115
    if error.errno in NOWHERE:
        return f"a link to {target}, which does not exist"
    if error.errno == errno.ELOOP:
        return f"a link to {target}, which leads back to itself"
    return f"a link to {target}, which cannot be reached ({error.strerror})"


def unusable_folder(folder: str, doing: str, error: OSError) -> StorageError:
    """Return the error for a folder that cannot be listed or entered, with the remedy."""
    remedy = (
        "give yourself the right to (chmod u+rx), or move it away"
        if error.errno in DENIED
        else "check the disk or network that it lies on"
    )
    return StorageError(
        f"the folder {shortened(folder, 300)} cannot be {doing} ({error.strerror}); {remedy}"
    )


def shortened(text: str, most: int = 80) -> str:
    """Return a text that may be long or hold line breaks so that it fits in a sentence."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in plain)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
