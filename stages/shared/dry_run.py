"""What dry runs say alike."""

from typing import Any

from milan_pipeline import storage
from milan_pipeline.core.console import say


def say_bytes_to_write(out: str, text: str, size: Any, **facts: Any) -> None:
    """Say how much a run would write, and how much space is free there.

    Args:
        out: folder or URL that it would write to.
        text: the size in words.
        size: in bytes, or several by name, for the document.
        facts: others, for the document.
    """
    say(
        f"bytes to write: {text}; free: {storage.free_text(out)}",
        bytes_to_write=size,
        **facts,
        free_bytes=storage.free_bytes(out),
    )


def say_files_to_write(out: str, count: int) -> None:
    """Say how many files and folders a run would write, and how many more there is room for."""
    free = storage.free_files(out)
    text = "no limit" if free is None else str(free)
    said = f"files and folders to write: {count}; free: {text}"
    say(said, files_to_write=count, free_files=free)
