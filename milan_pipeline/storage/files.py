"""Every URL through fsspec: read, range read, list, atomic put. Nobody else opens a file of data.

A name without `://` is a local path; `s3://` and `gs://` are object stores, with credentials from
their usual environment alone; `http(s)://` is only read from. What fails for a passing reason is
tried again, for about two minutes. Writes are atomic everywhere: a local file is written beside
its place and renamed, an object store gets a single PUT. A left-over temporary name starts with
a dot and ends in `.tmp`; listings leave those out.
"""

import contextlib
import functools
import io
import itertools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import fsspec
from braceexpand import braceexpand

from milan_pipeline.core.console import bytes_text
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import (
    ConfigError,
    MilanError,
    MissingDataError,
    StorageError,
    TruncatedError,
)
from milan_pipeline.storage.filesystems import (
    PIECE_BYTES,
    WEB_PROTOCOLS,
    cat,
    copied,
    info_of,
    is_local,
    knows_ranges,
    named_errors,
    names_in,
    open_ranges,
    reason_of,
    resolve,
    scheme_of,
)
from milan_pipeline.storage.retries import retried

ResultT = TypeVar("ResultT")

READ_THREADS, READ_AHEAD = 32, 128
"""Of small remote files that are read together."""


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
    filesystem, path = resolve(url)

    def read() -> bytes:
        data = cat(filesystem, path, start, length)
        if length is not None and len(data) > length:
            raise StorageError(
                f"{url} came whole where a part was asked for; its server must know ranges"
            )
        if length is not None and len(data) < length:
            missing = length - len(data)
            raise TruncatedError(f"{url} ends {missing} bytes early; it is truncated")
        return data

    return _patiently(read, url, filesystem)


def read_many(urls: Iterable[str]) -> Generator[bytes, None, None]:
    """Yield the bytes of many small files, in order: local ones at once, remote ones ahead.

    Args:
        urls: of one place; consumed lazily, at most `READ_AHEAD` in advance.

    Raises:
        MissingDataError: there is no such file.
        StorageError: one cannot be read.
    """
    rest = iter(urls)
    first = next(rest, None)
    if first is None:
        return
    all_urls = itertools.chain([first], rest)
    if local_path(first) is not None:
        yield from map(_read_local, all_urls)
        return
    contents = ordered_map(read_bytes, all_urls, workers=READ_THREADS, ahead=READ_AHEAD)
    with contextlib.closing(contents):
        yield from contents


def _read_local(url: str) -> bytes:
    # Finding a URL's file system, and being ready to try again, costs more than reading.
    try:
        return Path(url).read_bytes()
    except OSError:  # such as of a file:// URL, which is no path
        return read_bytes(url)


def open_read(url: str) -> BinaryIO:
    """Open a file for buffered binary reading, with `seek`.

    A remote one is read by ranges, ahead, each tried again where it fails. Where its server knows
    no ranges or not the file's size, it is first copied to a temporary file on this machine.

    Raises:
        MissingDataError: there is no such file.
        StorageError: it cannot be opened; reading from what is returned raises it, too.
    """
    filesystem, path = resolve(url)
    if is_local(filesystem):
        return _patiently(lambda: Path(path).open("rb"), url, filesystem)
    size = size_of(url)
    if size is not None and size <= PIECE_BYTES:
        return io.BytesIO(read_bytes(url))
    if size is None or not _patiently(lambda: knows_ranges(filesystem, path), url, filesystem):
        return _patiently(lambda: copied(filesystem, path), url, filesystem)
    return open_ranges(lambda start, length: read_bytes(url, start, length), size)


def put_bytes(url: str, data: bytes | memoryview) -> None:
    """Write a whole file, atomically; to an object store without a copy on the disk.

    Raises:
        StorageError: the place cannot be written, or it is full.
    """
    filesystem, path = _writable(url)
    if is_local(filesystem):
        with atomic_writer(url) as stream:
            stream.write(data)
    else:
        _patiently(lambda: filesystem.pipe_file(path, bytes(data)), url, filesystem, "written")


@contextlib.contextmanager
def atomic_writer(url: str) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block ends without an error.

    Nothing is flushed to the disk itself: whoever reads checks hashes, which tell of a power cut.

    Raises:
        StorageError: the place cannot be written, or it is full.
    """
    filesystem, path = _writable(url)
    local = is_local(filesystem)
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
            put = functools.partial(filesystem.put_file, str(temporary), path)
            _patiently(put, url, filesystem, "written")
    except MilanError:  # of the block, which knows better what failed
        raise
    except OSError as error:
        reason = reason_of(error)
        raise StorageError(f"{url} cannot be written ({reason}); make room or fix it") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def exists(url: str) -> bool:
    """Tell whether a file or folder is there.

    Raises:
        StorageError: its place cannot be asked.
    """
    filesystem, path = resolve(url)
    try:
        _patiently(lambda: info_of(filesystem, path), url, filesystem)
    except MissingDataError:
        return False
    return True


def size_of(url: str) -> int | None:
    """Return a file's bytes; None where a web server does not tell.

    Raises:
        MissingDataError: there is no such file.
        StorageError: its place cannot be asked.
    """
    filesystem, path = resolve(url)
    size = _patiently(lambda: info_of(filesystem, path), url, filesystem)["size"]
    return None if size is None else int(size)


def list_names(url: str) -> list[str]:
    """List the names in a folder, sorted, as they are now; empty where there is no such folder.

    Raises:
        StorageError: it cannot be listed.
    """
    filesystem, path = resolve(url)
    try:
        names = _patiently(lambda: names_in(filesystem, path), url, filesystem, "listed")
    except MissingDataError:
        return []
    return sorted(name for name in names if not (name.startswith(".") and name.endswith(".tmp")))


def free_bytes(url: str) -> int | None:
    """Return the free bytes of the disk that a URL is on; None for object stores."""
    filesystem, path = resolve(url)
    if not is_local(filesystem):
        return None
    place = Path(path)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def free_text(url: str) -> str:
    """Say how many bytes are free where a URL is."""
    free = free_bytes(url)
    return "unknown" if free is None else bytes_text(free)


def require_writable(url: str) -> None:
    """Refuse a place of a kind that is never written to, before any work is done.

    Raises:
        ConfigError: its scheme is not known, or lacks a package.
        StorageError: it is on a web server.
    """
    _writable(url)


def local_path(url: str) -> Path | None:
    """Return the local path of a URL, or None where it is not a local file."""
    filesystem, path = resolve(url)
    return Path(path) if is_local(filesystem) else None


def _writable(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    if scheme_of(url) in WEB_PROTOCOLS:
        raise StorageError(
            f"{url} cannot be written: web servers are only read from; give a local folder, "
            "s3:// or gs://"
        )
    return resolve(url)


def _patiently(
    action: Callable[[], ResultT],
    url: str,
    filesystem: fsspec.AbstractFileSystem,
    doing: str = "read",
) -> ResultT:
    """Do something with a URL, trying again what may pass, and name what does not."""
    with named_errors(url, doing):
        return retried(action, url=url, local=is_local(filesystem), doing=doing)
