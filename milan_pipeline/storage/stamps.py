"""A text for each entry of a listing that is another one when the file changes."""

import os
from collections.abc import Mapping
from typing import Any

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


def object_stamp(entry: Mapping[str, Any]) -> str | None:
    """Return size and tag of an object; None where its store gives no tag."""
    tag = next(filter(None, map(entry.get, TAGS)), None)
    return tag and f"{entry.get('size')} {tag}"
