"""The pictures below a folder, and what else lies there; nothing is left out without a word.

Links to folders are followed, since subsets of data sets are made of them; a link to a folder above
is not. Folders that are hidden, or that a system made, are left out, each file with its reason.
"""

import dataclasses
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from milan_pipeline.core.counting import are, counted
from milan_pipeline.core.text_table import in_order
from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.images.file_faults import (
    DENIED,
    fault_of,
    is_link,
    shortened,
    status_of,
    unusable_folder,
)
from milan_pipeline.images.formats import HEAD_BYTES, kind_by_bytes, kind_by_name
from milan_pipeline.images.found_files import Found, FoundFiles
from milan_pipeline.storage.retries import retried

logger = logging.getLogger(__name__)

SYSTEM_FOLDERS = (
    *("__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "lost+found", "$recycle.bin"),
    "system volume information",
)
"""What systems and file servers make in folders of users; in small letters."""
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini")
MOST_TIMES = 100
"""So often may a folder be reached by links."""
HIDDEN = "its name begins with a dot"
SYSTEM = "a system made the folder that it lies in"
SYSTEM_FILE = "a system made it"
LOOP = "a link to a folder above it"
NO_PICTURE = "no image by its name or its first bytes"
NO_FILE = "neither a file nor a folder"


class Ignored(TypedDict):
    """A file or folder that is no part of a data set, and why."""

    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Walk:
    """What lies below a folder.

    Attributes:
        files: the pictures, in the order of their paths.
        ignored: what else there is, in the same order.
        empty: folders directly below the root that hold no file, hidden ones aside.
        others: folders directly below the root that hold files, but no picture.
    """

    files: FoundFiles
    ignored: list[Ignored]
    empty: list[str]
    others: list[str]


@dataclasses.dataclass(frozen=True)
class _Folder:
    """A folder still to be listed.

    `above` has the paths, without links, of the folders above and its own; some file systems have
    no inodes to tell folders by. `reason` says why all that it holds is left out.
    """

    path: str
    name: str
    above: tuple[str, ...]
    reason: str | None = None


def walk_folder(root: Path, *, leave_out: tuple[Path, ...] = ()) -> Walk:
    """List the pictures below a folder.

    Args:
        root: the folder.
        leave_out: folders that are passed over, such as the one that is written to.

    Raises:
        DataError: links lead to folders with links, so that there is no end.
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
        self._passed = {os.path.realpath(path) for path in leave_out}
        self._files = FoundFiles()
        self._ignored: list[Ignored] = []
        self._tops: set[str] = set()
        self._pictured: set[str] = set()
        self._times: Counter[str] = Counter()
        self._again: list[str] = []
        self._start = _Folder(self._root, "", (os.path.realpath(root),))

    def walk(self) -> None:
        """Visit what there is in order, so that nothing need be sorted, and only names be kept."""
        left = [(self._start, self._names(self._start))]
        while left:
            folder, names = left[-1]
            name = next(names, None)
            if name is None:
                left.pop()
            elif below := self._visit(folder, name):
                left.append((below, self._names(below)))

    def result(self) -> Walk:
        reasons = (HIDDEN, SYSTEM, SYSTEM_FILE, LOOP)
        filled = {_top(row["file"]) for row in self._ignored if row["reason"] not in reasons}
        return Walk(
            self._files,
            self._ignored,
            empty=sorted(self._tops - self._pictured - filled),
            others=sorted(self._tops & filled - self._pictured),
        )

    def warn(self) -> None:
        """Name what users may not know of: hidden files are expected to be left out."""
        if self._again:
            logger.warning(
                "%s below %s %s there under another name already (%s): images come more than once",
                *(counted(len(self._again), "folders"), self._root, are(len(self._again))),
                shortened(self._again[0]),
            )
        for reason, what in ((LOOP, "links to folders above"), (SYSTEM, "files of systems")):
            rows = [row["file"] for row in self._ignored if row["reason"] == reason]
            if rows:
                logger.warning(
                    "%s in %s %s left out (%s)",
                    *(counted(len(rows), what), self._root, are(len(rows)), shortened(rows[0])),
                )

    def _names(self, folder: _Folder) -> Iterator[str]:
        """Return the names in a folder in order; they are kept while what is below is visited."""

        def listed() -> Iterator[str]:
            with os.scandir(folder.path) as entries:  # a list of a million names takes 90 MB
                return in_order(entry.name for entry in entries)

        try:
            return retried(listed, url=folder.path, local=True, doing="listed")
        except OSError as error:
            if folder.reason is not None:
                self._ignore(folder.name, folder.reason)
                return iter(())
            if isinstance(error, StorageError):  # of tries that all failed
                raise
            raise unusable_folder(folder.path, "listed", error) from error

    def _visit(self, folder: _Folder, entry: str) -> _Folder | None:
        """Take up a file; return a folder that is to be visited."""
        path = os.path.join(folder.path, entry)  # noqa: PTH118 - paths of a million files
        name = f"{folder.name}/{entry}".lstrip("/")
        reason = folder.reason or _reason_to_leave_out(entry)
        try:
            status = status_of(path)
        except OSError as error:
            if reason is not None:
                self._ignore(name, reason)
            elif isinstance(error, StorageError):
                raise
            else:
                self._add_faulty(folder, name, path, error)
            return None
        if stat.S_ISDIR(status.st_mode):
            return self._folder(folder, name, path, reason)
        if reason is not None:
            self._ignore(name, reason)
        elif not stat.S_ISREG(status.st_mode):
            self._ignore(name, NO_FILE)
        else:
            self._add_file(name, path, status.st_size)
        return None

    def _folder(self, folder: _Folder, name: str, path: str, reason: str | None) -> _Folder | None:
        leads_away = is_link(path)
        own = os.path.realpath(path) if leads_away else os.path.join(folder.above[-1], _base(name))  # noqa: PTH118
        if own in self._passed:
            return None
        if own in folder.above:
            self._ignore(name, reason or LOOP)
            return None
        if reason is not None and leads_away:
            self._ignore(name, reason)
            return None
        if not folder.name and reason is None:
            self._tops.add(name)
        self._count(name, own)
        return _Folder(path, name, (*folder.above, own), reason)

    def _count(self, name: str, own: str) -> None:
        """Notice folders that several links lead to; links to links may multiply without end."""
        self._times[own] += 1
        if self._times[own] > 1:
            self._again.append(name)
        if self._times[own] > MOST_TIMES:
            raise DataError(
                f"{self._root}/{shortened(name)} is reached by over {MOST_TIMES} ways, since links "
                "lead to folders with links; remove them"
            )

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
            self._add(Found(name, size, kind))

    def _add_faulty(self, folder: _Folder, name: str, path: str, error: OSError) -> None:
        if error.errno in DENIED and not is_link(path):
            raise unusable_folder(folder.path, "entered", error) from error
        fault = fault_of(path, error)
        kind = kind_by_name(name)
        if kind != "none":
            self._add(Found(name, 0, kind, fault))
        elif not folder.name or "." not in _base(name):  # it may be a folder of images
            raise MissingDataError(f"{path} is {fault}; restore that, or remove the link")
        else:
            self._ignore(name, fault)

    def _add(self, file: Found) -> None:
        self._files.append(file)
        if "/" in file.name:  # a flat folder may hold millions
            self._pictured.add(_top(file.name))

    def _ignore(self, name: str, reason: str) -> None:
        self._ignored.append({"file": name, "reason": reason})


def _head(path: str) -> bytes:
    def read() -> bytes:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(HEAD_BYTES)

    return retried(read, url=path, local=True)


def _top(name: str) -> str:
    return name.partition("/")[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _reason_to_leave_out(entry: str) -> str | None:
    if entry.startswith("."):
        return HIDDEN
    return SYSTEM if entry.lower() in SYSTEM_FOLDERS else None
