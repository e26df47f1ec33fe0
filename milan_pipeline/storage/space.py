"""Room on a disk: the bytes and files that are free, and what helps where there are none."""

import errno
import os
import shutil
from pathlib import Path

from milan_pipeline.core.console import bytes_text
from milan_pipeline.errors import StorageError, reason_of
from milan_pipeline.storage.filesystems import resolve

NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)

REMEDIES: dict[int | None, str] = {
    errno.EDQUOT: "a quota of bytes or of files is used up: delete what is not needed, have it "
    "raised, or give another place",
    errno.EFBIG: "its file system, or `ulimit -f`, allows no file so large: write smaller files "
    "(fewer --samples-per-shard), or give another place",
    errno.ENAMETOOLONG: "give a shorter name",
}


def free_bytes(url: str) -> int | None:
    """Return the free bytes of the disk that a URL is on; None for object stores."""
    file = resolve(url)
    return shutil.disk_usage(_existing(Path(file.path))).free if file.is_local else None


def free_text(url: str) -> str:
    """Say how many bytes are free where a URL is."""
    free = free_bytes(url)
    return "unknown" if free is None else bytes_text(free)


def free_files(url: str) -> int | None:
    """Return how many more files and folders the disk that a URL is on can have.

    None for object stores, and for file systems without a limit.
    """
    file = resolve(url)
    return _free_inodes(Path(file.path)) if file.is_local else None


def write_error(place: str | Path, error: OSError) -> StorageError:
    """Say that a local file cannot be written, and what helps.

    Args:
        place: the file, or its folder.
        error: what writing it raised.
    """
    remedy = _remedy(error, Path(place))
    return StorageError(f"{place} cannot be written ({reason_of(error)}); {remedy}")


def _remedy(error: OSError, place: Path) -> str:
    if error.errno in REMEDIES:
        return REMEDIES[error.errno]
    if error.errno == errno.ENOSPC and _free_inodes(place) == 0:
        free = bytes_text(shutil.disk_usage(_existing(place)).free)
        return (
            f"{free} are free, but its file system has no inodes left for more files: delete files "
            "there, or give another place"
        )
    if error.errno in NOT_ALLOWED:
        return "check who may write there, or give another place"
    if error.errno in IN_THE_WAY:
        return "what lies there is of another kind: move it, or give another place"
    if error.errno == errno.ENOENT:  # such as below /proc
        return "give another place, where folders can be made"
    return "make room or fix it"


def _free_inodes(place: Path) -> int | None:
    status = os.statvfs(_existing(place))
    return status.f_favail if status.f_files else None


def _existing(place: Path) -> Path:
    """Return the nearest folder or file above that exists."""
    place = place.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place
