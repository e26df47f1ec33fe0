"""All access to data by URL, through fsspec: read whole or in part, list, write atomically.

A name without `://` is a local path; `s3://` and `gs://` are object stores, with credentials from
their usual environment alone; `http(s)://` is only read from. What fails for a temporary reason is
tried again, for about two minutes. Writes are atomic everywhere: a local file is written beside its
place and renamed, an object store gets a single PUT. The name of a temporary file starts with a dot
and ends in `.tmp`; listings leave those out.
"""

import contextlib
import itertools
import tempfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from braceexpand import braceexpand

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import ConfigError, MilanError, MissingDataError, StorageError, reason_of
from milan_pipeline.storage.filesystems import (
    WEB_PROTOCOLS,
    File,
    resolve,
    scheme_of,
)
from milan_pipeline.storage.leftovers import temporary_name
from milan_pipeline.storage.space import write_error

READ_THREADS, READ_AHEAD = 32, 128
"""For small remote files that are read together."""


def join(base: str, *parts: str) -> str:
    """Append path parts to a URL or local path."""
    return "/".join([base.rstrip("/"), *parts])


def basename(url: str) -> str:
    """Return the last part of a URL or path; the query of a web server's URL is no part of it."""
    return _without_query(url).rstrip("/").rsplit("/", 1)[-1]


def folder_of(url: str) -> str:
    """Return everything before the last part of a URL or path."""
    head, slash, _ = _without_query(url).rstrip("/").rpartition("/")
    return (head or "/") if slash else "."


def has_query(url: str) -> bool:
    """Tell whether a web server's URL ends in a query, as signed ones do."""
    return url.startswith(("http://", "https://")) and "?" in url


def _without_query(url: str) -> str:
    """Drop what a signed URL ends with, which may hold slashes and changes with each signature."""
    return url.partition("?")[0] if has_query(url) else url


def expand(patterns: tuple[str, ...]) -> list[str]:
    """Expand `{000..009}` and `{a,b}` in each pattern, in order.

    A local file of that very name is meant as it stands; elsewhere a backslash before a brace
    makes it part of the name.

    Raises:
        ConfigError: a brace has no partner.
    """
    return [url for pattern in patterns for url in _expanded(pattern)]


def _expanded(pattern: str) -> list[str]:
    with contextlib.suppress(OSError, StorageError):
        path = local_path(pattern) if "{" in pattern else None
        if path is not None and path.exists():
            return [pattern]
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise ConfigError(
            f"{pattern!r} is no file, and has unbalanced braces; close them, or write \\{{ for "
            "one, and \\} for the other, of the name itself"
        ) from error


def read_bytes(url: str, start: int = 0, length: int | None = None) -> bytes:
    """Read a whole file or `length` bytes of it from `start`.

    Raises:
        MissingDataError: there is no such file.
        StorageError: reading failed, also when tried again.
        TruncatedError: the file ends before `start + length`, also when asked again.
    """
    return resolve(url).read(start, length)


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
    # To find a URL's file system and to prepare for retries takes longer than reading.
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
    return resolve(url).open()


def put_bytes(url: str, data: bytes | memoryview) -> None:
    """Write a whole file, atomically; to an object store without a copy on the disk.

    Raises:
        StorageError: the place cannot be written, or it is full.
    """
    file = _writable(url)
    if file.is_local:
        with atomic_writer(url) as stream:
            stream.write(data)
    else:
        file.put(bytes(data))


@contextlib.contextmanager
def atomic_writer(url: str) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block ends without an error.

    Data is not forced to the disk (fsync): readers check hashes, which reveal what a power cut
    left half written.

    Raises:
        StorageError: the place cannot be written, or it is full.
    """
    file = _writable(url)
    folder = Path(file.path).parent if file.is_local else Path(tempfile.gettempdir())
    temporary = folder / temporary_name()
    try:
        if file.is_local:
            folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
        if file.is_local:
            temporary.replace(file.path)
        else:
            file.put_file(temporary)
    except MilanError:  # raised inside the block, which knows better what failed
        raise
    except OSError as error:
        if file.is_local:
            raise write_error(url, error) from error
        raise StorageError(
            f"{url} cannot be written, as its copy in {folder} cannot ({reason_of(error)}); make "
            "room there, or name another folder by the variable TMPDIR"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def list_tree(url: str) -> list[str]:
    """List the paths of all files below a folder, sorted; empty where there is no such folder.

    Raises:
        StorageError: it cannot be listed.
    """
    try:
        paths = resolve(url).tree()
    except MissingDataError:
        return []
    return sorted(without_temporary(paths))


def exists(url: str) -> bool:
    """Tell whether a file or folder is there.

    Raises:
        StorageError: its place cannot be asked.
    """
    try:
        resolve(url).size()
    except MissingDataError:
        return False
    return True


def size_of(url: str) -> int | None:
    """Return a file's bytes; None where a web server does not tell.

    Raises:
        MissingDataError: there is no such file.
        StorageError: its place cannot be asked.
    """
    return resolve(url).size()


def list_names(url: str) -> list[str]:
    """List the names in a folder, sorted, as they are now; empty where there is no such folder.

    Raises:
        StorageError: it cannot be listed.
    """
    try:
        names = resolve(url).names()
    except MissingDataError:
        return []
    return sorted(name for name in names if not _is_temporary(name))


def list_sizes(url: str) -> dict[str, int | None]:
    """Return the bytes of what lies in a folder, by name, as `list_names` does the names.

    Of what a web server does not tell, and of folders, they are None or say nothing.

    Raises:
        StorageError: it cannot be listed.
    """
    try:
        return resolve(url).sizes()
    except MissingDataError:
        return {}


def list_stamps(url: str) -> dict[str, str | None]:
    """List a folder's names, sorted, each with a text that is another one when the file changes.

    It is None where the store tells nothing that would change. A folder that is not there is empty.

    Raises:
        StorageError: it cannot be listed.
    """
    try:
        stamps = resolve(url).stamps()
    except MissingDataError:
        return {}
    return {name: stamps[name] for name in sorted(stamps) if not _is_temporary(name)}


def without_temporary(paths: Iterable[str]) -> Iterator[str]:
    """Leave out the files that are still being written, or whose writer was killed."""
    return (path for path in paths if not _is_temporary(basename(path)))


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def require_writable(url: str) -> None:
    """Refuse a place that can never be written to, before any work is done.

    Raises:
        ConfigError: its scheme is not known, or lacks a package.
        StorageError: it is on a web server.
    """
    _writable(url)


def local_path(url: str) -> Path | None:
    """Return the local path of a URL, or None where it is not a local file."""
    file = resolve(url)
    return Path(file.path) if file.is_local else None


def _writable(url: str) -> File:
    if scheme_of(url) in WEB_PROTOCOLS:
        raise StorageError(
            f"{url} cannot be written: web servers are only read from; give a local folder, "
            "s3:// or gs://"
        )
    return resolve(url)
