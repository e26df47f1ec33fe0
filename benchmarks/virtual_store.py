"""An object store in memory behind fsspec that counts requests, their latency and their price.

`virtual://NAME/PATH` is an object of the bucket that `open_bucket(NAME)` made. It sends the
requests that s3fs would send: `tests/benchmarks/test_virtual_store.py` compares the two. Objects
are bytes, or are made when they are read, so that a store of a million units takes little memory.
No call waits: latency is added up.
"""

import contextlib
import dataclasses
import errno
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import xxhash
from fsspec.spec import AbstractFileSystem

from milan_pipeline import storage
from milan_pipeline.planning.requests import Requests

PAGE = 1000
"""Names in an answer to LIST."""
PART_BYTES = 50 << 20
"""s3fs sends a file in parts of this size once it has two of them."""
FIRST_BYTE_SECONDS, BYTES_PER_SECOND = 0.1, 85e6
"""Of one request, as Amazon's guide to the performance of S3 has them."""
NO_RANGE = "the object is empty"


@dataclasses.dataclass(frozen=True)
class Made:
    """A folder of objects that are made when they are read.

    Attributes:
        names: all names in the folder.
        read: returns an object's bytes by its name; `KeyError` where there is no such object.
        size: of an object, as a listing tells it, by its name.
    """

    names: Sequence[str]
    read: Callable[[str], bytes]
    size: Callable[[str], int] = len


class Bucket:
    """Objects by path, folders of made objects, and what was asked for."""

    def __init__(self, name: str) -> None:
        self.url = f"virtual://{name}"
        self.objects: dict[str, bytes] = {}
        self.folders: dict[str, Made] = {}
        self.forget()

    def forget(self) -> None:
        """Count from zero."""
        self.kinds: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.ranges: list[int] = []
        self.read_bytes = self.written_bytes = 0
        self.waited = 0.0
        self._lock = threading.Lock()

    @property
    def requests(self) -> Requests:
        """What was asked for since the last `forget`."""
        return Requests(**self.kinds)

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy the files of a local folder without counting, and return the folder's URL."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.objects[f"{prefix}/{path.relative_to(folder)}"] = path.read_bytes()
        return f"{self.url}/{prefix}"

    def count(self, kind: str, *, read: int = 0, written: int = 0) -> None:
        """Note a request, the bytes that it moves, and the time that it would take."""
        with self._lock:
            self.kinds[kind] += 1
            self.read_bytes += read
            self.written_bytes += written
            self.waited += FIRST_BYTE_SECONDS + (read + written) / BYTES_PER_SECOND
            if kind == "gets":
                self.ranges.append(read)

    def data(self, key: str) -> bytes | None:
        """Return an object's bytes without counting; None where there is none."""
        found = self.objects.get(key)
        folder, _, name = key.rpartition("/")
        if found is None and folder in self.folders:
            with contextlib.suppress(KeyError):
                return self.folders[folder].read(name)
        return found

    def listed(self, folder: str, *, deep: bool, beginning: str = "") -> list[dict[str, Any]]:
        """Return what a listing of a folder tells, without counting."""
        inside = f"{folder}/" if folder else ""
        place = self.url.partition("://")[2]
        found: dict[str, dict[str, Any]] = {}
        for key, size, tag in self._below(inside):
            if not key.startswith(inside + beginning):
                continue
            first, slash, _ = key[len(inside) :].partition("/")
            is_folder = bool(slash) and not deep
            path = f"{place}/{inside + first if is_folder else key}"
            kind = "directory" if is_folder else "file"
            found[path] = {"name": path, "size": size, "type": kind, "ETag": tag}
        return list(found.values())

    def _below(self, inside: str) -> Iterator[tuple[str, int, str]]:
        """Yield path, size and tag of the objects whose paths begin so."""
        for key, data in self.objects.items():
            if key.startswith(inside):
                yield key, len(data), xxhash.xxh3_64_hexdigest(data)
        for folder, made in self.folders.items():
            if f"{folder}/".startswith(inside):
                for name in made.names:
                    yield f"{folder}/{name}", made.size(name), name


_BUCKETS: dict[str, Bucket] = {}


@contextlib.contextmanager
def open_bucket(name: str) -> Iterator[Bucket]:
    """Make an empty bucket; it is gone afterwards."""
    bucket = _BUCKETS[name] = Bucket(name)
    try:
        # The first object that a process puts into a bucket is read back.
        storage.put_bytes(f"{bucket.url}/first", b"first")
        del bucket.objects["first"]
        bucket.forget()
        yield bucket
    finally:
        del _BUCKETS[name]


class VirtualFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """What the library calls of s3fs."""

    protocol: ClassVar[Any] = ("virtual", "s3")  # it is read and written as S3 is
    cachable = True

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        """Return an object or a range of it."""
        bucket, key = _split(path)
        if start is None and end is None:
            bucket.count("heads")
        data = bucket.data(key)
        part = b"" if data is None else data[start or 0 : end]
        bucket.count("gets", read=len(part))
        if data is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", path)
        if not data and start is not None:
            raise OSError(errno.EINVAL, NO_RANGE, path)
        return part

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        """Write an object by one request."""
        bucket, key = _split(path)
        bucket.count("puts", written=len(value))
        bucket.written[key] += 1
        bucket.objects[key] = bytes(value)

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        """Copy a local file, a large one in parts."""
        bucket = _split(rpath)[0]
        data = Path(lpath).read_bytes()
        parts = -(-len(data) // PART_BYTES) if len(data) >= 2 * PART_BYTES else 0
        for _part in range(
            parts + bool(parts)
        ):  # one begins them, `pipe_file` is the one that ends
            bucket.count("puts")
        self.pipe_file(rpath, data)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Tell an object's size, or that there is a folder."""
        bucket, key = _split(path)
        bucket.count("heads")
        data = bucket.data(key)
        if data is not None:
            return {"name": path, "size": len(data), "type": "file"}
        bucket.count("lists")  # it may be a folder
        if not bucket.listed(key, deep=False):
            raise FileNotFoundError(errno.ENOENT, "no such object", path)
        return {"name": path, "size": 0, "type": "directory"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a folder."""
        bucket, key = _split(path)
        found = bucket.listed(key, deep=False)
        for _page in range(_pages(found)):
            bucket.count("lists")
        if not found:
            bucket.count("lists")  # of the folder above, where it may be a file
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        return found if detail else [entry["name"] for entry in found]

    def find(self, path: str, prefix: str = "", **_: Any) -> list[str]:
        """List all objects below a folder, or those whose paths in it begin so."""
        bucket, key = _split(path)
        found = bucket.listed(key, deep=True, beginning=prefix)
        for _page in range(_pages(found)):
            bucket.count("lists")
        if not found:
            with contextlib.suppress(FileNotFoundError):
                self.info(path)
        return [entry["name"] for entry in found]

    def rm_file(self, path: str) -> None:
        """Delete an object."""
        bucket, key = _split(path)
        bucket.count("deletes")
        bucket.objects.pop(key, None)


def _pages(found: Sequence[object]) -> int:
    return max(1, -(-len(found) // PAGE))


def _split(path: str) -> tuple[Bucket, str]:
    name, _, key = path.partition("://")[2 if "://" in path else 0].strip("/").partition("/")
    return _BUCKETS[name], key.rstrip("/")


fsspec.register_implementation("virtual", VirtualFileSystem)
