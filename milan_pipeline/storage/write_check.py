"""Whether a remote store keeps the bytes that are sent to it.

boto3 sends a checksum with what it writes. Some stores that speak S3 refuse that; some old ones
store it within the object, without an error. So the first object that a process writes to each
bucket is read back.
"""

import contextlib
import os
import urllib.parse
from typing import Any

from milan_pipeline.errors import StorageError

VARIABLE = "AWS_REQUEST_CHECKSUM_CALCULATION"
COMPARED_BYTES = 64 << 10
"""From the beginning, where what was added to a body shows."""

_checked: set[tuple[str, str]] = set()
"""The endpoint and the bucket of each store that keeps what it is sent."""


def require_kept(url: str, filesystem: Any, path: str, sent: bytes) -> None:
    """Read back the first object that this process wrote to a bucket; delete it if it is another.

    Args:
        url: of the object, for the message.
        filesystem: of fsspec.
        path: of the object there.
        sent: what was sent, at least its first `COMPARED_BYTES`.

    Raises:
        StorageError: the store keeps other bytes than were sent.
    """
    parts = urllib.parse.urlsplit(url)
    store = os.environ.get("AWS_ENDPOINT_URL", ""), f"{parts.scheme}://{parts.netloc}"
    if store in _checked or not sent:
        return
    try:
        kept = filesystem.cat_file(path, start=0, end=COMPARED_BYTES)
    except (PermissionError, FileNotFoundError):  # who may only write cannot compare
        return
    if kept != sent[:COMPARED_BYTES]:
        with contextlib.suppress(Exception):  # it may be forbidden to delete
            filesystem.rm_file(path)
        raise StorageError(f"{store[1]} keeps other bytes than were written to {url}; {remedy()}")
    _checked.add(store)


def remedy() -> str:
    """Say what helps with a store that does not know the checksums of boto3."""
    if os.environ.get(VARIABLE, "").lower() == "when_required":
        return "write to another store"
    return f"set {VARIABLE}=when_required in the environment and run the same command again"


def refuses_checksums(error: BaseException) -> bool:
    """Tell whether a store refused a header of a request, as those do that know no checksums."""
    response = getattr(error.__cause__ or error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code in ("NotImplemented", "XAmzContentSHA256Mismatch")
