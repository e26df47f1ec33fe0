"""Temporary files that killed writers left on a local disk.

Nothing reads them, and listings leave them out, but they take as much room as what was written.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from milan_pipeline.storage.filesystems import resolve

NAME = re.compile(r"\.[0-9a-f]{32}\.tmp")
OWN_FOLDERS = re.compile(r"view-\d+|done|codec|progress|labels")
"""Folders in an output folder that are searched, too; others may hold anything."""


def temporary_name() -> str:
    """Return a name that no other writer has."""
    return f".{uuid.uuid4().hex}.tmp"


def leftovers(url: str) -> list[Path]:
    """Return the temporary files in an output folder, also those that are being written now.

    There are none in an object store.
    """
    file = resolve(url)
    return sorted(_walk(file.path, inside=False)) if file.is_local else []


def remove_leftovers(url: str, *, before: float) -> None:
    """Delete the temporary files in an output folder that nobody has written to for a while.

    Args:
        url: the folder.
        before: a moment, in seconds since 1970; what was written to since is kept.
    """
    for path in leftovers(url):
        with contextlib.suppress(OSError):  # another process may have deleted it
            if path.stat().st_mtime < before:
                path.unlink()


def _walk(folder: str, *, inside: bool) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if inside or OWN_FOLDERS.fullmatch(entry.name):
                    yield from _walk(entry.path, inside=True)
            elif NAME.fullmatch(entry.name):
                yield Path(entry.path)
