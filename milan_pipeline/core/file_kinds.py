"""Recognise what often lies in the place of a large file, by its first bytes."""

HEAD = 256
"""First bytes that are enough."""


def explained(place: str, head: bytes, otherwise: str) -> str:
    """Return the error for a file that is not what was written there.

    Args:
        place: path or URL of the file.
        head: its first `HEAD` bytes, or all of them.
        otherwise: what is wrong and what helps where nothing stands in its place.
    """
    return f"{place} {(stand_in(head) if head else None) or otherwise}"


def stand_in(head: bytes) -> str | None:
    """Say what a file is that is not the file itself, and what helps; None if it is none of these.

    Args:
        head: its first `HEAD` bytes, or all of them.

    Returns:
        The end of a sentence that begins with the file's name.
    """
    if not head:
        return "is empty; copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer and not the file itself; run `git lfs pull` in its repository, "
            "or download the file"
        )
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page and not the file itself; download the file"
    return None
