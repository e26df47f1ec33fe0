"""The file system behind a URL, and what its clients' errors mean.

Clients raise errors of their own, not only `OSError`; here they become ours, in one sentence.

A remote file as a stream that outlasts its server's restart: ranges, fetched ahead.
"""

import contextlib
import errno
import io
import os
import tempfile
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import MilanError, MissingDataError, StorageError
from milan_pipeline.storage.retries import is_refusal, lacks_credentials

REFUSED_PROTOCOLS = ("pipe", "python", "github", "git", "ssh", "sftp", "reference")
WEB_PROTOCOLS = ("http", "https")
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(WEB_PROTOCOLS, "http"),
}
"""Which extra of this package installs a protocol's client."""
NOT_FOUND_STATUS = 404


def resolve(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Find the file system of a URL and the path in it.

    Raises:
        StorageError: the URL would run a program or reach for code, or its protocol is unknown or
            lacks its client.
    """
    scheme = scheme_of(url)
    if scheme in REFUSED_PROTOCOLS or "::" in url:
        raise StorageError(f"{url!r} is refused: {scheme or '::'} URLs are not data; give a path")
    # Listings must be fresh: another process may have written since the last one.
    options = {"use_listings_cache": False} if scheme in EXTRAS else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        if scheme not in EXTRAS:
            raise _unusable(url, error) from error
        raise StorageError(
            f"{url!r} needs a client that is not installed; run `pip install "
            f"'milan-pipeline[{EXTRAS[scheme]}]'`"
        ) from error
    except Exception as error:  # clients check credentials and endpoints when they are made
        raise _unusable(url, error) from error
    return filesystem, path


def _unusable(url: str, error: Exception) -> StorageError:
    return StorageError(f"{url!r} cannot be opened ({reason_of(error)}); check its protocol")


def scheme_of(url: str) -> str:
    """Return what stands before the first colon, in small letters; empty for a plain path."""
    return url.split(":", 1)[0].lower() if ":" in url else ""


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Tell whether a file system is this machine's (or mounted in it)."""
    protocols = filesystem.protocol
    return "file" in ((protocols,) if isinstance(protocols, str) else protocols)


def cat(filesystem: fsspec.AbstractFileSystem, path: str, start: int, length: int | None) -> bytes:
    """Read a whole file, or at most `length` bytes of it from `start`, by one request."""
    if length is not None or start:
        end = None if length is None else start + length
        return cast(bytes, filesystem.cat_file(path, start=start or None, end=end))
    if is_local(filesystem):
        return Path(path).read_bytes()  # faster, which matters where there are many marks
    # Of what it shall read whole, s3fs first asks for the size; of a range it does not.
    by_range = "s3" in filesystem.protocol
    try:
        return cast(bytes, filesystem.cat_file(path, start=0 if by_range else None))
    except OSError as error:
        if not by_range or error.errno != errno.EINVAL:  # which an empty object has no range for
            raise
        return cast(bytes, filesystem.cat_file(path))


def info_of(filesystem: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """Return what is known about a file or folder; "size" may be None.

    Raises:
        FileNotFoundError: there is none, and not only because its server did not answer.
    """
    try:
        found: dict[str, Any] = filesystem.info(path)
    except FileNotFoundError as error:
        # fsspec's HTTP client calls a file missing whatever it was that failed.
        cause = error.__cause__
        lost = scheme_of(path) in WEB_PROTOCOLS and isinstance(cause, Exception)
        if not lost or getattr(cause, "status", None) == NOT_FOUND_STATUS:
            raise
        assert cause is not None  # noqa: S101 - for the type checker
        raise cause from None
    return found


def names_in(filesystem: fsspec.AbstractFileSystem, path: str) -> set[str]:
    """Return the names in a folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if is_local(filesystem):
        return set(os.listdir(path))  # noqa: PTH208 - of 100,000 names, no paths are wanted
    entries = [str(entry).rstrip("/") for entry in filesystem.ls(path, detail=False)]
    if scheme_of(path) in WEB_PROTOCOLS:  # a page of links
        entries = [urllib.parse.unquote(entry) for entry in entries if "?" not in entry]
    # Some tools mark a folder of an object store by an object of its own name.
    return {entry.rsplit("/", 1)[-1] for entry in entries if entry != path.rstrip("/")}


def knows_ranges(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Tell whether parts can be read of a file of several bytes: a web server is asked for one."""
    if scheme_of(path) not in WEB_PROTOCOLS:
        return True
    with filesystem.open(path, "rb", cache_type="none") as file:
        file.seek(1)  # since without ranges the first byte could be had
        try:
            return len(file.read(1)) == 1
        except ValueError:  # what fsspec says rather than to fetch the whole file
            return False


def copied(filesystem: fsspec.AbstractFileSystem, path: str) -> BinaryIO:
    """Copy a file to a temporary one on this machine, which goes when it is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - is handed out
    try:
        filesystem.get_file(path, file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return cast(BinaryIO, file)


@contextlib.contextmanager
def named_errors(url: str, doing: str) -> Iterator[None]:
    """Turn what a file system raises into our errors.

    Args:
        url: what is worked on.
        doing: "read", "written" or "listed".

    Raises:
        MissingDataError: what is read does not exist.
        StorageError: anything else failed.
    """
    try:
        yield
    except MilanError:
        raise
    except FileNotFoundError as error:
        if doing == "written":
            reason = reason_of(error)
            raise StorageError(
                f"{url} cannot be written ({reason}); create its bucket or folder, or correct it"
            ) from error
        raise MissingDataError(f"{url} does not exist; check the path") from error
    except Exception as error:
        remedy = _remedy(error, doing)
        raise StorageError(f"{url} cannot be {doing} ({reason_of(error)}); {remedy}") from error


def reason_of(error: BaseException) -> str:
    """Return an error's text in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _remedy(error: Exception, doing: str) -> str:
    if lacks_credentials(error):
        return (
            "give credentials by the store's usual environment (such as AWS_PROFILE, "
            "AWS_ACCESS_KEY_ID or GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if is_refusal(error):
        return "check who may access it, and the credentials in the environment"
    return "make room or fix it" if doing == "written" else "check the path"


PIECE_BYTES = 8 << 20
THREADS = 3
PIECES_AHEAD = 4
"""Those being fetched and the one being read: 32 MiB in memory at most, beside the buffer."""
BUFFER_BYTES = 1 << 20


def open_ranges(fetch: Callable[[int, int], bytes], size: int) -> BinaryIO:
    """Open a file for buffered reading, of which ranges can be read.

    Args:
        fetch: returns so many bytes from an offset, exactly, or raises; called in threads.
        size: of the file.
    """
    return cast(BinaryIO, io.BufferedReader(_RangeStream(fetch, size), BUFFER_BYTES))


class _RangeStream(io.RawIOBase):
    """Read pieces in order from where the last `seek` went; nothing is fetched before a read."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._pieces: Generator[bytes, None, None] | None = None
        self._rest = memoryview(b"")  # of the piece that is being read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        position = base + offset
        if position < 0:
            raise ValueError(f"cannot seek to {position}, before the beginning")
        ahead = position - self._position
        if 0 <= ahead <= len(self._rest):
            self._rest = self._rest[ahead:]
        else:
            self._forget()
        self._position = position
        return position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if not self._rest and self._position < self._size:
            self._rest = memoryview(self._next_piece())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count

    def _next_piece(self) -> bytes:
        if self._pieces is None:
            starts = range(self._position, self._size, PIECE_BYTES)
            self._pieces = ordered_map(
                lambda start: self._fetch(start, min(PIECE_BYTES, self._size - start)),
                starts,
                workers=THREADS,
                ahead=PIECES_AHEAD,
            )
        try:
            return next(self._pieces)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Stop fetching ahead; the next read begins anew at the position."""
        if self._pieces is not None:
            self._pieces.close()
        self._pieces, self._rest = None, memoryview(b"")

    def close(self) -> None:
        self._forget()
        super().close()
