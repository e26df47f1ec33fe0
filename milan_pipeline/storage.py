"""Every URL through fsspec: read, range read, list, atomic put. Nobody else opens a file of data.

A name without `://` is a local path. Writes are atomic everywhere: a local file is written beside
its place and renamed, an object store gets a single PUT. A left-over temporary name starts with
a dot and ends in `.tmp`; listings leave those out.
"""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from braceexpand import braceexpand

from milan_pipeline.errors import (
    ConfigError,
    MilanError,
    MissingDataError,
    StorageError,
    TruncatedError,
)
from milan_pipeline.retries import retried

REFUSED_PROTOCOLS = ("pipe", "python", "github", "git", "ssh", "sftp", "reference")


def join(base: str, *parts: str) -> str:
    """Append path parts to a URL or local path."""
    return "/".join([base.rstrip("/"), *parts])


def basename(url: str) -> str:
    """Return the last part of a URL or path."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def folder_of(url: str) -> str:
    """Return everything before the last part of a URL or path."""
    head, slash, _ = url.rstrip("/").rpartition("/")
    return (head or "/") if slash else "."


def expand(patterns: tuple[str, ...]) -> list[str]:
    """Expand `{000..009}` and `{a,b}` in each pattern, in order.

    Raises:
        ConfigError: a brace is not closed.
    """
    try:
        return [url for pattern in patterns for url in braceexpand(pattern)]
    except ValueError as error:
        raise ConfigError(f"{' '.join(patterns)!r} has unbalanced braces; close them") from error


def read_bytes(url: str, start: int = 0, length: int | None = None) -> bytes:
    """Read a whole file or `length` bytes of it from `start`.

    Raises:
        MissingDataError: there is no such file.
        StorageError: reading failed, also when tried again.
        TruncatedError: the file ends before `start + length`, also when asked again.
    """
    filesystem, path = _resolve(url)

    def read() -> bytes:
        end = None if length is None else start + length
        data = cast(bytes, filesystem.cat_file(path, start=start or None, end=end))
        if length is not None and len(data) > length:
            raise StorageError(
                f"{url} came whole where a part was asked for; its server must know ranges"
            )
        if length is not None and len(data) < length:
            missing = length - len(data)
            raise TruncatedError(f"{url} ends {missing} bytes early; it is truncated")
        return data

    with _named_errors(url):
        return retried(read, url=url, local=_is_local(filesystem))


def open_read(url: str) -> BinaryIO:
    """Open a file for buffered binary reading.

    Raises:
        MissingDataError: there is no such file.
        StorageError: it cannot be opened.
    """
    filesystem, path = _resolve(url)
    with _named_errors(url):
        return retried(
            lambda: cast(BinaryIO, filesystem.open(path, "rb")),
            url=url,
            local=_is_local(filesystem),
        )


@contextlib.contextmanager
def _named_errors(url: str) -> Iterator[None]:
    """Turn what a file system raises while reading into our errors."""
    try:
        yield
    except MilanError:
        raise
    except FileNotFoundError as error:
        raise MissingDataError(f"{url} does not exist; check the path") from error
    except Exception as error:  # remote stores raise errors of their clients, not only OSError
        raise StorageError(f"{url} cannot be read ({error})") from error


def put_bytes(url: str, data: bytes | memoryview) -> None:
    """Write a whole file, atomically."""
    with atomic_writer(url) as stream:
        stream.write(data)


@contextlib.contextmanager
def atomic_writer(url: str) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block ends without an error.

    Nothing is flushed to the disk itself: whoever reads checks hashes, which tell of a power cut.

    Raises:
        StorageError: the place cannot be written, or it is full.
    """
    filesystem, path = _resolve(url)
    local = _is_local(filesystem)
    folder = Path(path).parent if local else Path(tempfile.gettempdir())
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        if local:
            folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
        if local:
            temporary.replace(path)
        else:
            filesystem.put_file(str(temporary), path)
    except MilanError:  # of the block, which knows better what failed
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{url} cannot be written ({reason}); make room or fix it") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def exists(url: str) -> bool:
    """Tell whether a file or folder is there."""
    filesystem, path = _resolve(url)
    return bool(filesystem.exists(path))


def list_names(url: str) -> list[str]:
    """List the names in a folder, sorted; empty where there is no such folder."""
    filesystem, path = _resolve(url)
    try:
        # Listings must be fresh: another process may have written since the last one.
        filesystem.invalidate_cache(path)
        entries = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    names = {basename(str(entry)) for entry in entries}
    return sorted(name for name in names if not (name.startswith(".") and name.endswith(".tmp")))


def free_bytes(url: str) -> int | None:
    """Return the free bytes of the disk that a URL is on; None for object stores."""
    filesystem, path = _resolve(url)
    if not _is_local(filesystem):
        return None
    place = Path(path)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def local_path(url: str) -> Path | None:
    """Return the local path of a URL, or None where it is not a local file."""
    filesystem, path = _resolve(url)
    return Path(path) if _is_local(filesystem) else None


def _is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    protocols = filesystem.protocol
    return "file" in ((protocols,) if isinstance(protocols, str) else protocols)


def _resolve(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Find the filesystem of a URL, refusing those that run programs or reach for code."""
    scheme = url.split(":", 1)[0] if ":" in url else ""
    if scheme in REFUSED_PROTOCOLS or "::" in url:
        raise StorageError(f"{url!r} is refused: {scheme or '::'} URLs are not data; give a path")
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise StorageError(f"{url!r} cannot be opened ({error}); check its protocol") from error
    return filesystem, path
