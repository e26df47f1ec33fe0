"""Entries of a listing: their names, and a text for each that changes when the file does."""

import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Entry = Mapping[str, Any]

TAGS = ("ETag", "etag", "md5Hash")
"""What clients call the text by which a store tells one content from another."""


def file_stamp(entry: "os.DirEntry[str]") -> str | None:
    """Return size, time and inode of a local file; None where it is gone.

    Files are replaced and not written over, so that a new one has another inode than the old one.
    """
    try:
        status = entry.stat()
    except FileNotFoundError:  # a temporary file, which has its name by now
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def object_stamp(entry: Entry) -> str | None:
    """Return size and tag of an object; None where its store gives no tag."""
    tag = next(filter(None, map(entry.get, TAGS)), None)
    return tag and f"{entry.get('size')} {tag}"


def named(entries: Iterable[Entry], folder: str, *, is_page: bool) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of a remote folder, each with its name there.

    Args:
        entries: as the client lists them; `name` is the path.
        folder: its path.
        is_page: whether a web server answered, with a page of links.
    """
    own = folder.rstrip("/")
    for entry in entries:
        path = str(entry["name"]).rstrip("/")
        if is_page and "?" in path:
            continue
        path = urllib.parse.unquote(path) if is_page else path
        # Some tools mark a folder of an object store by an object of its own name.
        if path != own:
            yield path.rsplit("/", 1)[-1], entry
