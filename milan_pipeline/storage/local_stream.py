"""A local file as a stream: where a network file system fails, it is opened and read again."""

import contextlib
import io
from collections.abc import Callable
from typing import BinaryIO, cast

Reading = Callable[[], int | None]


def open_local(path: str, again: Callable[[Reading], int | None]) -> BinaryIO:
    """Open a file for buffered reading, with `seek`.

    Args:
        path: of the file.
        again: calls what reads until that does not fail, or raises what readers are to get.
    """
    return cast(BinaryIO, io.BufferedReader(_LocalStream(path, again)))


class _LocalStream(io.RawIOBase):
    """Read from an open file; after an error, from one that is opened anew at the same place."""

    def __init__(self, path: str, again: Callable[[Reading], int | None]) -> None:
        self._path = path
        self._again = again
        self._file = io.FileIO(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: bytearray) -> int | None:  # type: ignore[override]
        with contextlib.suppress(OSError):
            return self._file.readinto(buffer)
        position = self._file.tell()
        return self._again(lambda: self._read_anew(position, buffer))

    def _read_anew(self, position: int, buffer: bytearray) -> int | None:
        fresh = io.FileIO(self._path)  # the handle of the other may be stale for ever
        try:
            fresh.seek(position)
            count = fresh.readinto(buffer)
        except BaseException:
            fresh.close()
            raise
        self._file.close()
        self._file = fresh
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
