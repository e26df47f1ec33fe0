"""What marks said that were read before: `marks/view-VV.bin` in a store of many units.

Each unit has a mark of its own, and a stage that begins must know all of them. Reading 400,000
small objects takes minutes; listing them takes 400 requests. So a stage that has read many marks
writes down what they say, with the stamp that the listing gave to each: a store's ETag, or size,
time and inode of a file. The next reader reads only the marks that have another stamp now. This
file is no part of the targets: if it is missing or damaged, all marks are read.

It has a line with a version and the hash of what follows, a line of JSON, and the columns as bytes.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.schema import Count, DocumentError, parsed
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.images.budget import Skipped
from milan_pipeline.shards.columns import texts
from milan_pipeline.targets.marks.columns import NO_ROW, MarkColumns

logger = logging.getLogger(__name__)

FOLDER = "marks"
VERSION = b"3"
WORTH_KEEPING = 1000
"""Marks are written down if so many of them are new, and a tenth of all; fewer are just read."""
STAMPS = "stamps_n"

Stamps = Mapping[str, str | None]
"""What a listing told of each file, by name, ascending; see `storage.list_stamps`."""


class _Head(TypedDict):
    marks: Count
    columns: dict[str, str]
    kinds: list[tuple[str, int]]
    skipped: list[tuple[int, list[Skipped]]]


def read_known(store_url: str, view: str, stamps: Stamps) -> MarkColumns:
    """Return what is known of the marks that have not changed since.

    Args:
        store_url: the store.
        view: name of the view.
        stamps: of the view's marks, now.
    """
    nothing = MarkColumns.of([], [])
    if len(stamps) < WORTH_KEEPING:
        return nothing
    try:
        known, then_n = _from_bytes(storage.read_bytes(_url(store_url, view)))
    except (MissingDataError, DocumentError):
        return nothing
    now_u = _column_of(stamps)
    rows_u = known.rows_of(texts(list(stamps)))
    same_u = (rows_u != NO_ROW) & (now_u != b"")
    same_u[same_u] = then_n[rows_u[same_u]] == now_u[same_u]
    everything = same_u.all() and len(known) == len(same_u)
    return known if everything else known.take(rows_u[same_u])


def keep_known(store_url: str, view: str, marks: MarkColumns, stamps: Stamps, *, new: int) -> None:
    """Write down what a view's marks say, if many of them are new.

    Args:
        store_url: the store.
        view: name of the view.
        marks: all of them; they were read after they were listed.
        stamps: of that listing.
        new: how many of the marks were not known.
    """
    if new < max(WORTH_KEEPING, len(marks) // 10) or not any(stamps.values()):
        return
    data = _to_bytes(marks, _column_of(stamps))
    try:
        storage.put_bytes(_url(store_url, view), _hashed(data) + b"\n" + data)
    except StorageError as error:  # then the next start takes longer
        logger.info("%s", error)


def _column_of(stamps: Stamps) -> NDArray[np.bytes_]:
    """Return stamps as a column; empty where the store tells none."""
    return texts([stamp or "" for stamp in stamps.values()])


def _to_bytes(marks: MarkColumns, stamps_n: NDArray[np.bytes_]) -> bytes:
    columns = marks.columns() | {STAMPS: stamps_n}
    head: _Head = {
        "marks": len(marks),
        "columns": {name: column.dtype.str for name, column in columns.items()},
        "kinds": marks.kinds,
        "skipped": list(marks.skipped.items()),
    }
    return b"".join(
        [json.dumps(head).encode(), b"\n", *(one.tobytes() for one in columns.values())]
    )


def _from_bytes(data: bytes) -> tuple[MarkColumns, NDArray[np.bytes_]]:
    """Return marks and their stamps, as views of a file; raises `DocumentError`."""
    first = data.find(b"\n") + 1
    second = data.find(b"\n", first) + 1
    if data[: first - 1] != _hashed(memoryview(data)[first:]):
        raise DocumentError("it does not match its own hash")
    head = parsed(data[first:second], _Head)
    columns: dict[str, NDArray[Any]] = {}
    for name, dtype in head["columns"].items():
        columns[name] = np.frombuffer(data, dtype, head["marks"], second)
        second += columns[name].nbytes
    stamps_n = columns.pop(STAMPS)
    skipped = dict(head["skipped"])
    return MarkColumns(**columns, kinds=head["kinds"], skipped=skipped), stamps_n


def _hashed(data: bytes | memoryview) -> bytes:
    return VERSION + b" " + xxhash.xxh3_128_hexdigest(data).encode()


def _url(store_url: str, view: str) -> str:
    return storage.join(store_url, FOLDER, f"{view}.bin")
