"""A remote file as a stream: its ranges are fetched ahead, and again if the server restarts."""

import io
from collections.abc import Callable, Generator
from typing import BinaryIO, cast

from milan_pipeline.core.threads import ordered_map

PIECE_BYTES = 8 << 20
THREADS = 3
PIECES_AHEAD = 4
"""Including the one that is read: 32 MiB in memory at most, beside the buffer."""
BUFFER_BYTES = 1 << 20


def open_ranges(
    fetch: Callable[[int, int], bytes],
    size: int,
    *,
    piece: int = PIECE_BYTES,
    buffer: int = BUFFER_BYTES,
) -> BinaryIO:
    """Open a file for buffered reading, of which ranges can be read.

    Args:
        fetch: returns so many bytes from an offset, exactly, or raises; called in threads.
        size: of the file.
        piece: bytes of a range.
        buffer: bytes that are kept of a piece for small reads.
    """
    return cast(BinaryIO, io.BufferedReader(_RangeStream(fetch, size, piece), buffer))


class _RangeStream(io.RawIOBase):
    """Read pieces in order from where the last `seek` went; nothing is fetched before a read."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, piece: int) -> None:
        self._fetch = fetch
        self._size = size
        self._piece = piece
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
            starts = range(self._position, self._size, self._piece)
            self._pieces = ordered_map(
                lambda start: self._fetch(start, min(self._piece, self._size - start)),
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
