"""Pieces of shards kept on a local disk: `--cache DIR`, never more than `--cache-gb`.

A shard is cut into aligned pieces; each that is needed is read from its source once and kept as a
file, named by a hash of the shard's URL, its sha256 and the piece's number, so that a changed shard
never meets old pieces. Any number of processes may share a folder. Whoever adds a piece holds the
folder's lock (flock): it evicts the pieces that were not used for longest, writes, renames, and
keeps the count of bytes in the lock's file. Readers take no lock: a process can go on reading a
file that was evicted after it had opened it. A writer that is killed leaves a temporary file, which
the next writer overwrites.
"""

import contextlib
import dataclasses
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xxhash

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, StorageError
from milan_pipeline.storage.locks import NO_LOCKS

PIECE_BYTES = 8 << 20
KEPT_SHARE = 0.9
"""Share of the cap that eviction leaves, so that it need not list the folder for each piece."""

LOCK_NAME, TEMPORARY_NAME, SUFFIX = ".lock", ".piece.tmp", ".piece"
FETCH_LOCKS = 64
MOST_DIGITS = 20
"""Digits of the count of bytes; a longer one is damaged, and the bytes are counted anew."""


class ShardFile(NamedTuple):
    """A tar as its manifest lists it."""

    url: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where pieces are kept, how many bytes of them at most, and how large each is.

    Raises:
        ConfigError: the cap is too small for two pieces.
    """

    folder: Path
    max_bytes: int
    piece_bytes: int = PIECE_BYTES

    def __post_init__(self) -> None:
        if self.max_bytes < 2 * self.piece_bytes:
            raise ConfigError(
                f"--cache-gb of {self.max_bytes} bytes is less than two pieces of "
                f"{self.piece_bytes} bytes; give more"
            )

    def pieces(self, offset: int, length: int) -> range:
        """Return the numbers of the pieces that a range touches; the first alone if it is empty."""
        last = max(offset + length - 1, offset)
        return range(offset // self.piece_bytes, last // self.piece_bytes + 1)


class ShardCache:
    """Read ranges of shards through the pieces in a folder; threads may share it."""

    def __init__(self, config: CacheConfig) -> None:
        """Create the folder.

        Raises:
            StorageError: it cannot be written.
        """
        self._config = config
        # Two threads of a process must not fetch one piece, nor (on NFS) share the flock.
        self._fetching = [threading.Lock() for _ in range(FETCH_LOCKS)]
        self._writing = threading.Lock()
        with self._named_errors():
            config.folder.mkdir(parents=True, exist_ok=True)
            (config.folder / LOCK_NAME).touch()

    def read(self, file: ShardFile, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fetching the pieces that are not here.

        Raises:
            MissingDataError: the shard does not exist.
            StorageError: it cannot be read, or ends before; or the folder cannot be written.
        """
        if offset + length > file.bytes:
            missing = offset + length - file.bytes
            raise StorageError(f"{file.url} ends {missing} bytes early; it is truncated")
        parts, size = [], self._config.piece_bytes
        for number in self._config.pieces(offset, length):
            start = number * size
            first, last = max(offset - start, 0), min(offset + length - start, size)
            parts.append(self._part(file, number, first, last - first))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drop(self, file: ShardFile, offset: int, length: int) -> None:
        """Delete the pieces of a range, because their bytes were wrong."""
        with self._named_errors():
            for number in self._config.pieces(offset, length):
                self.path_of(file, number).unlink(missing_ok=True)

    def path_of(self, file: ShardFile, number: int) -> Path:
        """Return the file of a piece."""
        name = xxhash.xxh3_128_hexdigest(f"{file.url}\n{file.sha256}\n{number}".encode())
        return self._config.folder / f"{name}{SUFFIX}"

    def _part(self, file: ShardFile, number: int, first: int, length: int) -> bytes:
        path = self.path_of(file, number)
        found = self._cached(path, first, length)
        if found is not None:
            return found
        with self._fetching[hash(path) % FETCH_LOCKS]:
            found = self._cached(path, first, length)  # another thread may just have fetched it
            if found is not None:
                return found
            start = number * self._config.piece_bytes
            size = min(self._config.piece_bytes, file.bytes - start)
            piece = storage.read_bytes(file.url, start, size)
            with self._named_errors():
                self._keep(path, piece)
        return piece[first : first + length]

    def _cached(self, path: Path, first: int, length: int) -> bytes | None:
        """Read a part of a piece; None where it is not here, or not whole (after a power cut)."""
        with self._named_errors():
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                with contextlib.suppress(PermissionError):  # the piece is another user's
                    os.utime(descriptor)  # the time of use, by which pieces are evicted
                data = os.pread(descriptor, length, first)
            finally:
                os.close(descriptor)
        return data if len(data) == length else None

    def _keep(self, path: Path, piece: bytes) -> None:
        """Make room for a piece and put it under its name."""
        temporary = self._config.folder / TEMPORARY_NAME
        with self._writing, (self._config.folder / LOCK_NAME).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = lock.read(MOST_DIGITS + 1)
            known = text.isdigit() and len(text) <= MOST_DIGITS
            total = int(text) if known else self._config.max_bytes
            if total + len(piece) > self._config.max_bytes:
                total = self._evict(len(piece))
            # Counted before it is written: a kill between the two makes the count too high, which
            # the next eviction corrects.
            lock.seek(0)
            lock.truncate()
            lock.write(b"%d" % (total + len(piece)))
            lock.flush()
            temporary.write_bytes(piece)
            temporary.replace(path)

    def _evict(self, needed: int) -> int:
        """Delete the pieces that were not used for longest; return the bytes that are left."""
        (self._config.folder / TEMPORARY_NAME).unlink(missing_ok=True)
        pieces = []
        with os.scandir(self._config.folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    with contextlib.suppress(FileNotFoundError):  # dropped by a reader
                        status = entry.stat()
                        pieces.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in pieces)
        if total + needed <= self._config.max_bytes:
            return total
        goal = min(self._config.max_bytes - needed, int(KEPT_SHARE * self._config.max_bytes))
        for _, size, path in sorted(pieces):
            if total <= goal:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        return total

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise StorageError(
                    f"--cache {self._config.folder} lies on a file system without locks "
                    f"({error.strerror}), by which processes share it; name a folder on a disk of "
                    "this machine"
                ) from error
            raise StorageError(
                f"--cache {self._config.folder} cannot be used ({error.strerror or error}); make "
                "room there, give less --cache-gb, or name another folder"
            ) from error
