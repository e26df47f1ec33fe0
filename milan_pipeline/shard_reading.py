"""Read whole shards in the order of their rows: few large range reads, ahead, in threads.

Samples that lie near each other are fetched together, as one span; the tar headers and small
members between them are read over. Local and remote shards are read alike.
"""

import contextlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.errors import DataError, TruncatedError
from milan_pipeline.parallel import ordered_map
from milan_pipeline.shards import checked

SPAN_BYTES = 8 << 20
"""What one read fetches at most, unless a single sample is larger."""
GAP_BYTES = 16 << 10
"""What is read over between two samples rather than asked for apart."""
WAITING_SPANS = 2
"""Beside those that threads are fetching: the one whose rows are handed out, and the next."""


class _Span(NamedTuple):
    """Rows of a shard that lie close together: (offset, length, xxh3) each, in row order."""

    shard: int
    url: str
    first_row: int
    rows: list[tuple[int, int, int]]

    @property
    def start(self) -> int:
        return self.rows[0][0]

    @property
    def stop(self) -> int:
        return _end(self.rows[-1])


def read_rows(
    shards: Iterable[tuple[str, NDArray[Any]]], *, threads: int = 4
) -> Generator[tuple[int, int, bytes], None, None]:
    """Yield every row's bytes, verified: (shard number, row number, bytes), in order.

    At most `threads + WAITING_SPANS` spans are in memory, also where one shard ends and the next
    begins.

    Args:
        shards: (URL, index) of each; consumed lazily, in the calling thread.
        threads: reads at a time; 0 reads when a row's turn comes.

    Raises:
        DataError: a sample's bytes are not what the index says, or the shard ends before them.
        MissingDataError: a shard does not exist.
        StorageError: it cannot be read.
    """
    fetched = ordered_map(_fetched, _spans(shards), workers=threads, ahead=threads + WAITING_SPANS)
    with contextlib.closing(fetched):
        for span, data in fetched:
            for number, (offset, length, digest) in enumerate(span.rows, start=span.first_row):
                at = offset - span.start
                sample = checked(data[at : at + length], span.url, offset, length, digest)
                yield span.shard, number, sample


def _spans(shards: Iterable[tuple[str, NDArray[Any]]]) -> Iterator[_Span]:
    """Cut each shard's rows into runs without a large gap, none above `SPAN_BYTES`."""
    for shard, (url, table) in enumerate(shards):
        columns = (table[name].tolist() for name in ("offset", "length", "xxh3"))
        rows: list[tuple[int, int, int]] = []
        for number, row in enumerate(zip(*columns, strict=True)):
            if rows and not _belongs(row, rows):
                yield _Span(shard, url, number - len(rows), rows)
                rows = []
            rows.append(row)
        if rows:
            yield _Span(shard, url, len(table) - len(rows), rows)


def _belongs(row: tuple[int, int, int], rows: list[tuple[int, int, int]]) -> bool:
    gap = row[0] - _end(rows[-1])
    return 0 <= gap <= GAP_BYTES and _end(row) - rows[0][0] <= SPAN_BYTES


def _end(row: tuple[int, int, int]) -> int:
    offset, length, _ = row
    return offset + length


def _fetched(span: _Span) -> tuple[_Span, bytes]:
    try:
        return span, storage.read_bytes(span.url, span.start, span.stop - span.start)
    except TruncatedError as error:
        raise DataError(
            f"{span.url} is truncated or damaged: it ends before byte {span.stop}, where the "
            "index has a sample; copy the shard again, or index it anew with `milan-pipeline "
            "index --overwrite` if it was changed on purpose"
        ) from error
