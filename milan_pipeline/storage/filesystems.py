"""The file system behind a URL."""

import dataclasses
import errno
import functools
import io
import os
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from milan_pipeline.core.garbage import no_search_for_cycles
from milan_pipeline.errors import StorageError, TruncatedError, reason_of
from milan_pipeline.storage.client_errors import named_errors
from milan_pipeline.storage.local_stream import open_local
from milan_pipeline.storage.range_stream import PIECE_BYTES, open_ranges
from milan_pipeline.storage.retries import retried
from milan_pipeline.storage.stamps import file_stamp, named, object_stamp
from milan_pipeline.storage.write_check import COMPARED_BYTES, require_kept

MethodT = TypeVar("MethodT", bound=Callable[..., Any])

REFUSED_PROTOCOLS = ("pipe", "python", "github", "git", "ssh", "sftp", "reference")
WEB_PROTOCOLS = ("http", "https")
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(WEB_PROTOCOLS, "http"),
}
"""Which extra of this package installs a protocol's client."""
NOT_FOUND_STATUS = 404
ONE_REQUEST_BYTES = 5 << 30
"""The most that S3 takes by one request; of several, a kill leaves parts that are paid for."""


def _patient(doing: str) -> Callable[[MethodT], MethodT]:
    """Have a method of `File` try again after a temporary error, and raise our errors.

    Args:
        doing: what it does to the file: "read", "written" or "listed".
    """

    def with_patience(method: MethodT) -> MethodT:
        @functools.wraps(method)
        def call(file: "File", *args: Any) -> Any:
            action = functools.partial(method, file, *args)
            with named_errors(file.url, doing):
                return retried(action, url=file.url, local=file.is_local, doing=doing)

        return cast(MethodT, call)

    return with_patience


@dataclasses.dataclass(frozen=True)
class File:
    """A file or folder: its URL, the file system that has it, and its path there.

    Each method tries again what fails for a temporary reason, then raises `MissingDataError` if
    there is no such file, `StorageError` if anything else failed.
    """

    url: str
    filesystem: fsspec.AbstractFileSystem
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine, or is mounted there."""
        return "file" in self._protocols

    @property
    def lists_beginnings(self) -> bool:
        """Whether `tree` takes the beginning of paths: s3fs and gcsfs take a prefix."""
        return not self._protocols.isdisjoint(("s3", "gs"))

    @property
    def _protocols(self) -> set[str]:
        protocols = self.filesystem.protocol
        return {protocols} if isinstance(protocols, str) else set(protocols)

    @_patient("read")
    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Read the whole file, or `length` bytes of it from `start`, by one request.

        Raises:
            TruncatedError: the file ends before `start + length`, also when asked again.
        """
        data = self._fetch(start, length)
        if length is not None and len(data) > length:
            raise StorageError(
                f"{self.url} came whole where a part was asked for; its server must know ranges"
            )
        if length is not None and len(data) < length:
            missing = length - len(data)
            raise TruncatedError(f"{self.url} ends {missing} bytes early; it is truncated")
        return data

    def _fetch(self, start: int, length: int | None) -> bytes:
        cat = self.filesystem.cat_file
        if length is not None or start:
            end = None if length is None else start + length
            return cast(bytes, cat(self.path, start=start or None, end=end))
        if self.is_local:
            return Path(self.path).read_bytes()  # faster, which matters where there are many marks
        # To read a file whole, s3fs first asks for its size; to read a range, it does not.
        by_range = "s3" in self._protocols
        try:
            return cast(bytes, cat(self.path, start=0 if by_range else None))
        except OSError as error:
            # An empty object has no range.
            if not by_range or error.errno != errno.EINVAL:
                raise
            return cast(bytes, cat(self.path))

    def open(self) -> BinaryIO:
        """Open the file for buffered reading, with `seek`: see `storage.open_read`."""
        if self.is_local:
            return self._open_local()
        size = self.size()
        if size is not None and size <= PIECE_BYTES:
            return io.BytesIO(self.read())
        if size is None or not self._knows_ranges():
            return self._copied()
        return open_ranges(self.read, size)

    @_patient("read")
    def _open_local(self) -> BinaryIO:
        return open_local(self.path, self._read_again)

    @_patient("read")
    def _read_again(self, reading: Callable[[], int | None]) -> int | None:
        return reading()

    @_patient("read")
    def _knows_ranges(self) -> bool:
        """Tell whether parts of the file can be read; a web server is asked for one byte."""
        if scheme_of(self.path) not in WEB_PROTOCOLS:
            return True
        with self.filesystem.open(self.path, "rb", cache_type="none") as file:
            file.seek(1)  # the first byte could be read without ranges, too
            try:
                return len(file.read(1)) == 1
            except ValueError:  # fsspec raises it where it would have to fetch the whole file
                return False

    @_patient("read")
    def _copied(self) -> BinaryIO:
        """Copy the file to a temporary one on this machine, which is deleted when closed."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - is handed out
        try:
            self.filesystem.get_file(self.path, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return cast(BinaryIO, file)

    @_patient("read")
    def size(self) -> int | None:
        """Return the bytes of a file; None where a web server does not tell."""
        try:
            size = self.filesystem.info(self.path).get("size")
        except FileNotFoundError as error:
            # fsspec's HTTP client raises this whatever has failed.
            cause = error.__cause__
            if (
                scheme_of(self.path) not in WEB_PROTOCOLS
                or not isinstance(cause, Exception)
                or getattr(cause, "status", None) == NOT_FOUND_STATUS
            ):
                raise
            raise cause from None
        return None if size is None else int(size)

    @_patient("listed")
    def names(self) -> set[str]:
        """Return the names in a folder."""
        if self.is_local:
            return set(os.listdir(self.path))  # noqa: PTH208 - of 100,000 names, no paths are wanted
        return {name for name, _ in self._listed()}

    @_patient("listed")
    def sizes(self) -> dict[str, int | None]:
        """Return the bytes of what lies in a folder, by name; None where a server does not tell."""
        return {name: entry.get("size") for name, entry in self._listed()}

    @_patient("listed")
    def stamps(self) -> dict[str, str | None]:
        """Return the names in a folder, each with a text that changes with the file."""
        if self.is_local:
            with os.scandir(self.path) as entries:
                found = ((entry.name, file_stamp(entry)) for entry in entries)
                return {name: stamp for name, stamp in found if stamp is not None}
        return {name: object_stamp(entry) for name, entry in self._listed()}

    def _listed(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the names in a folder, each with what the client tells of it."""
        with no_search_for_cycles():  # which would visit the entries, perhaps a million
            entries = self.filesystem.ls(self.path, detail=True)
        return named(entries, self.path, is_page=scheme_of(self.path) in WEB_PROTOCOLS)

    @_patient("listed")
    def tree(self, beginning: str = "") -> set[str]:
        """Return the paths of all files below a folder, or of those that begin so, relative to it.

        A beginning may be given only where the client `lists_beginnings`.
        """
        if not self.is_local:
            root = self.path.rstrip("/") + "/"
            only = {"prefix": beginning} if beginning else {}
            found = self.filesystem.find(self.path, **only)
            return {str(path).removeprefix(root) for path in found if str(path).startswith(root)}
        return {
            os.path.relpath(os.path.join(folder, name), self.path)  # noqa: PTH118 - as in `names`
            for folder, _, names in os.walk(self.path, onerror=_raise)
            for name in names
        }

    @_patient("written")
    def put(self, data: bytes) -> None:
        """Write an object of a remote store, by one request."""
        one_request = {"chunksize": ONE_REQUEST_BYTES} if "s3" in self._protocols else {}
        self.filesystem.pipe_file(self.path, data, **one_request)
        require_kept(self.url, self.filesystem, self.path, data)

    @_patient("written")
    def put_file(self, source: Path) -> None:
        """Copy a file of this machine to a remote store."""
        self.filesystem.put_file(str(source), self.path)
        with source.open("rb") as stream:
            require_kept(self.url, self.filesystem, self.path, stream.read(COMPARED_BYTES))


def _raise(error: OSError) -> None:
    raise error


def resolve(url: str) -> File:
    """Find the file system of a URL and the path in it.

    Raises:
        StorageError: the URL would run a program or reach for code, or its protocol is unknown or
            lacks its client.
    """
    if not url:
        raise StorageError("a path is empty; name a file or folder (is a shell's variable unset?)")
    scheme = scheme_of(url)
    if "::" in url:
        return _local_with_colons(url)
    if scheme in REFUSED_PROTOCOLS:
        raise StorageError(f"{url!r} is refused: {scheme} URLs are not data; give a path")
    if EXTRAS.get(scheme) in ("s3", "gs") and not urllib.parse.urlsplit(url).netloc:
        raise StorageError(f"{url!r} names no bucket; give {scheme}://BUCKET/PATH")
    # Listings must be fresh: another process may have written since the last one.
    options = {"use_listings_cache": False} if scheme in EXTRAS else {}
    try:
        return File(url, *fsspec.core.url_to_fs(url, **options))
    except ImportError as error:
        if scheme not in EXTRAS:
            raise _unusable(url, error) from error
        raise StorageError(
            f"{url!r} needs a client that is not installed; run `pip install "
            f"'milan-pipeline[{EXTRAS[scheme]}]'`"
        ) from error
    except Exception as error:  # clients check credentials and endpoints when they are made
        raise _unusable(url, error) from error


def _local_with_colons(url: str) -> File:
    """Return a local file whose path has two colons, by which fsspec chains file systems.

    Raises:
        StorageError: it may be meant as a chain.
    """
    if not url.startswith(("/", "./", "../")):
        remedy = "a path without it" if "://" in url else f"a path: ./{url} if this is one"
        raise StorageError(
            f"{url!r} is refused: '::' chains URLs, which are not data; give {remedy}"
        )
    local = fsspec.filesystem("file")
    return File(url, local, str(Path(url).absolute()))


def _unusable(url: str, error: Exception) -> StorageError:
    return StorageError(f"{url!r} cannot be opened ({reason_of(error)}); check its protocol")


def scheme_of(url: str) -> str:
    """Return what stands before the first colon, in small letters; empty for a plain path."""
    return url.split(":", 1)[0].lower() if ":" in url else ""
