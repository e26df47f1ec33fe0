"""A folder of things that nobody may touch, and a look at what lies around it before and after."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def plant(folder: Path) -> Path:
    """Make a file that a name out of a tar or manifest may lead to; return it."""
    folder.mkdir(parents=True)
    precious = folder / "precious.jpg"
    precious.write_bytes(b"nobody writes here")
    return precious


def tree(root: Path, *, but: tuple[Path, ...]) -> dict[str, object]:
    """Return every path below a folder, with the bytes of files; but for what lies in some."""
    return {
        str(path): (path.read_bytes() if path.is_file() else path.is_symlink())
        for path in root.rglob("*")
        if not any(folder == path or folder in path.parents for folder in but)
    }


@contextlib.contextmanager
def untouched(root: Path, *, but: tuple[Path, ...] = ()) -> Iterator[None]:
    """Require that everything below a folder stays as it is, but for output folders."""
    before = tree(root, but=but)
    yield
    assert tree(root, but=but) == before
