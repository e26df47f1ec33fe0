"""The pictures below a folder, and what else lies there; nothing is left out without a word.

Links to folders are followed, since subsets of data sets are made of them; a link to a folder above
is not. Folders that are hidden, or that a system made, are left out, each file with its reason.
"""

import dataclasses
import errno
import logging
import os
import stat
from pathlib import Path
from typing import TypedDict

from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.images.formats import HEAD_BYTES, Kind, kind_by_bytes, kind_by_name
from milan_pipeline.storage.retries import retried

logger = logging.getLogger(__name__)

SYSTEM_FOLDERS = (
    *("__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "lost+found", "$recycle.bin"),
    "system volume information",
)
"""What systems and file servers make in folders of users; in small letters."""
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini")
HIDDEN = "its name begins with a dot"
SYSTEM = "a system made the folder that it lies in"
SYSTEM_FILE = "a system made it"
LOOP = "a link to a folder above it"
NO_PICTURE = "no image by its name or its first bytes"
NO_FILE = "neither a file nor a folder"
NOWHERE = (errno.ENOENT, errno.ENOTDIR)
DENIED = (errno.EACCES, errno.EPERM)


class Ignored(TypedDict):
    """A file or folder that is no part of a data set, and why."""

    file: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A picture: its path below the root, its bytes, and what kind it is.

    `fault` says why it cannot be read, such as that it is a link to nothing; `size` is then 0.
    """

    name: str
    size: int
    kind: Kind
    fault: str | None = None


@dataclasses.dataclass(frozen=True)
class Walk:
    """What lies below a folder.

    Attributes:
        files: the pictures, in the order of their paths.
        ignored: what else there is, in the same order.
        empty: folders directly below the root that hold no file, hidden ones aside.
        others: folders directly below the root that hold files, but no picture.
    """

    files: list[Found]
    ignored: list[Ignored]
    empty: list[str]
    others: list[str]


@dataclasses.dataclass(frozen=True)
class _Folder:
    """A folder still to be listed.

    `above` has device and inode of it and of the folders above; `reason` says why all that it holds
    is left out.
    """

    path: str
    name: str
    above: tuple[tuple[int, int], ...]
    reason: str | None = None


def walk_folder(root: Path, *, leave_out: tuple[Path, ...] = ()) -> Walk:
    """List the pictures below a folder.

    Args:
        root: the folder.
        leave_out: folders that are passed over, such as the one that is written to.

    Raises:
        MissingDataError: a link that may be one to a folder leads nowhere.
        StorageError: a folder cannot be listed or entered.
    """
    walker = _Walker(root, leave_out)
    walker.walk()
    walker.warn()
    return walker.result()


class _Walker:
    def __init__(self, root: Path, leave_out: tuple[Path, ...]) -> None:
        self._root = str(root)
        self._passed = {_id_of(path.stat()) for path in leave_out if path.is_dir()}
        self._files: list[Found] = []
        self._ignored: list[Ignored] = []
        self._tops: set[str] = set()
        self._left = [_Folder(self._root, "", (_id_of(_status(self._root)),))]

    def walk(self) -> None:
        while self._left:
            folder = self._left.pop()
            for name in self._names(folder):
                self._visit(folder, name)

    def result(self) -> Walk:
        self._files.sort(key=lambda file: file.name.split("/"))
        self._ignored.sort(key=lambda row: row["file"].split("/"))
        pictured = {_top(file.name) for file in self._files}
        reasons = (HIDDEN, SYSTEM, SYSTEM_FILE, LOOP)
        filled = {_top(row["file"]) for row in self._ignored if row["reason"] not in reasons}
        return Walk(
            self._files,
            self._ignored,
            empty=sorted(self._tops - pictured - filled),
            others=sorted(self._tops & filled - pictured),
        )

    def warn(self) -> None:
        """Name what users may not know of: hidden files are expected to be left out."""
        for reason, what in ((LOOP, "links to folders above"), (SYSTEM, "files of systems")):
            rows = [row["file"] for row in self._ignored if row["reason"] == reason]
            if rows:
                logger.warning(
                    "%d %s in %s are left out (%s)", len(rows), what, self._root, shortened(rows[0])
                )

    def _names(self, folder: _Folder) -> list[str]:
        def listed() -> list[str]:
            return os.listdir(folder.path)  # noqa: PTH208 - names are wanted, of a million files

        try:
            return retried(listed, url=folder.path, local=True, doing="listed")
        except OSError as error:
            if folder.reason is not None:
                self._ignore(folder.name, folder.reason)
                return []
            if isinstance(error, StorageError):  # of tries that all failed
                raise
            raise _unusable(folder.path, "listed", error) from error

    def _visit(self, folder: _Folder, entry: str) -> None:
        path = os.path.join(folder.path, entry)  # noqa: PTH118 - paths of a million files
        name = f"{folder.name}/{entry}".lstrip("/")
        reason = folder.reason or _reason_to_leave_out(entry)
        try:
            status = _status(path)
        except OSError as error:
            if reason is not None:
                self._ignore(name, reason)
            elif isinstance(error, StorageError):
                raise
            else:
                self._add_faulty(folder, name, path, error)
            return
        if stat.S_ISDIR(status.st_mode):
            self._add_folder(folder, name, path, _id_of(status), reason)
        elif reason is not None:
            self._ignore(name, reason)
        elif not stat.S_ISREG(status.st_mode):
            self._ignore(name, NO_FILE)
        else:
            self._add_file(name, path, status.st_size)

    def _add_folder(
        self, folder: _Folder, name: str, path: str, own: tuple[int, int], reason: str | None
    ) -> None:
        if own in self._passed:
            return
        if own in folder.above:
            self._ignore(name, reason or LOOP)
        elif reason is not None and is_link(path):
            self._ignore(name, reason)
        else:
            if not folder.name and reason is None:
                self._tops.add(name)
            self._left.append(_Folder(path, name, (*folder.above, own), reason))

    def _add_file(self, name: str, path: str, size: int) -> None:
        kind = kind_by_name(name)
        if kind != "image" and size:
            try:
                kind_within = kind_by_bytes(_head(path))
            except OSError as error:
                if kind == "none" and "." in _base(name):
                    self._ignore(name, f"it cannot be read ({error.strerror or error})")
                    return
                kind = "image"  # it may be one, and whoever reads it will name it
            else:
                kind = kind if kind_within == "none" else kind_within
        if kind == "none":
            is_system = _base(name).lower() in SYSTEM_FILES
            self._ignore(name, SYSTEM_FILE if is_system else NO_PICTURE)
        else:
            self._files.append(Found(name, size, kind))

    def _add_faulty(self, folder: _Folder, name: str, path: str, error: OSError) -> None:
        if error.errno in DENIED and not is_link(path):
            raise _unusable(folder.path, "entered", error) from error
        fault = fault_of(path, error)
        kind = kind_by_name(name)
        if kind != "none":
            self._files.append(Found(name, 0, kind, fault))
        elif not folder.name or "." not in _base(name):  # it may be a folder of images
            raise MissingDataError(f"{path} is {fault}; restore that, or remove the link")
        else:
            self._ignore(name, fault)

    def _ignore(self, name: str, reason: str) -> None:
        self._ignored.append({"file": name, "reason": reason})


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


def shortened(text: str, most: int = 80) -> str:
    """Return a text that may be long or hold line breaks so that it fits in a sentence."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in plain)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _status(path: str) -> os.stat_result:
    return retried(lambda: os.stat(path), url=path, local=True)  # noqa: PTH116


def _head(path: str) -> bytes:
    def read() -> bytes:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(HEAD_BYTES)

    return retried(read, url=path, local=True)


def _id_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _top(name: str) -> str:
    return name.partition("/")[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _reason_to_leave_out(entry: str) -> str | None:
    if entry.startswith("."):
        return HIDDEN
    return SYSTEM if entry.lower() in SYSTEM_FOLDERS else None


def _unusable(folder: str, doing: str, error: OSError) -> StorageError:
    remedy = (
        "give yourself the right to (chmod u+rx), or move it away"
        if error.errno in DENIED
        else "check the disk or network that it lies on"
    )
    return StorageError(
        f"the folder {shortened(folder, 300)} cannot be {doing} ({error.strerror}); {remedy}"
    )
