"""A disk of a few pages that can be grown, and made read-only: a tmpfs, which root mounts."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096


class SmallDisk:
    """A tmpfs at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remount(self, options: str) -> None:
        """Change its options, such as `size=1m`, `ro` or `rw`."""
        _run("mount", "-o", f"remount,{options}", str(self.folder))


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount a disk of so many bytes for a while."""
    folder.mkdir(parents=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        _run("umount", "--lazy", str(folder))  # helpers of what wrote may end a moment later


def can_mount(folder: Path) -> bool:
    """Tell whether this process may mount: containers most often forbid it."""
    try:
        with small_disk(folder, PAGE):
            return True
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False


def pages_of(folder: Path) -> int:
    """Return the bytes that a folder takes on such a disk."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, env=os.environ)
