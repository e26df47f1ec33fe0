"""Bytes by row in a temporary file, so that memory does not grow with them."""

import os
import tempfile
import weakref
from array import array

import xxhash

from milan_pipeline.errors import StorageError, reason_of


class Spool:
    """Rows of bytes that can be read in any order, by several threads.

    The file has no name, so that nothing is left behind, however the process ends.

    Raises:
        StorageError: the folder for temporary files cannot be written.
    """

    def __init__(self) -> None:
        try:
            self._file, path = tempfile.mkstemp(prefix="milan-pipeline-")
            os.unlink(path)  # noqa: PTH108 - a name of the system, gone at once
        except OSError as error:
            raise _unwritable(error) from error
        weakref.finalize(self, os.close, self._file)
        self._ends = array("q", [0])
        self._hash = xxhash.xxh3_64()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, data: bytes) -> None:
        """Add a row.

        Raises:
            StorageError: the disk is full.
        """
        end, left = self._ends[-1], memoryview(data)
        try:
            while left:
                count = os.pwrite(self._file, left, end)
                left, end = left[count:], end + count
        except OSError as error:
            raise _unwritable(error) from error
        self._hash.update(len(data).to_bytes(8, "little") + data)
        self._ends.append(end)

    def read(self, row: int) -> bytes:
        """Return a row's bytes."""
        start, end = self._ends[row], self._ends[row + 1]
        parts = []
        while start < end:
            parts.append(os.pread(self._file, end - start, start))
            start += len(parts[-1])
        return b"".join(parts)

    @property
    def hash(self) -> str:
        """The xxh3-64 of all rows, in their order."""
        return self._hash.hexdigest()


def _unwritable(error: OSError) -> StorageError:
    return StorageError(
        f"{tempfile.gettempdir()} cannot be written ({reason_of(error)}); give a folder with room "
        "for temporary files in the environment variable TMPDIR"
    )
