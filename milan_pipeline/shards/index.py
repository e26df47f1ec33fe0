"""The index of a shard: a plain `.npy` table with one row a sample: key, place, hash and label."""

import hashlib
import io
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.file_kinds import HEAD, explained
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.shards.labels import NO_CLASS, Label
from milan_pipeline.shards.manifest import Manifest, Shard

# np.load parses headers with `ast`, which CPython 3.11 may fail at in several threads at once.
_READING_HEADER = threading.Lock()

MAKERS = {
    "images": "copy it again, or make it with `milan-pipeline index`",
    "targets": "copy it again, or run `milan-pipeline pack-targets` again",
}
"""What helps where the index of a shard is not there, by the kind of shards."""

CLASS_FIELD = "label"
MASK_FIELDS = ("mask_offset", "mask_length", "mask_xxh3")
_PLACE_TYPES = ("<i8", "<i8", "<u8")


def index_table(
    rows: Sequence[tuple[str, int, int, int]], labels: Sequence[Label] = ()
) -> NDArray[np.void]:
    """Build an index.

    Args:
        rows: (key, byte offset, length, xxh3-64) of each sample.
        labels: of each sample, or none at all. Fields for class numbers and for masks are there
            only if a sample has one.
    """
    width = max((len(row[0].encode()) for row in rows), default=1)
    dtype = [("key", f"S{width}"), *zip(("offset", "length", "xxh3"), _PLACE_TYPES, strict=True)]
    columns: list[list[Any]] = [[row[0].encode() for row in rows]]
    columns += [[row[at] for row in rows] for at in (1, 2, 3)]
    if any(label.number != NO_CLASS for label in labels):
        dtype.append((CLASS_FIELD, "<i8"))
        columns.append([label.number for label in labels])
    if any(label.mask.length for label in labels):
        dtype += zip(MASK_FIELDS, _PLACE_TYPES, strict=True)
        columns += [[label.mask[at] for label in labels] for at in range(3)]
    table = np.zeros(len(rows), dtype=dtype)
    for (name, _), column in zip(dtype, columns, strict=True):
        table[name] = column
    return table


def index_bytes(table: NDArray[np.void]) -> bytes:
    """Serialise an index as `.npy`."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def load_index(manifest: Manifest, shard: Shard) -> NDArray[np.void]:
    """Read and verify a shard's index, in file order; see `index_table` for its fields.

    Raises:
        DataError: it is not the index that the manifest lists.
        MissingDataError: it is not there.
    """
    url = manifest.index_url_of(shard)
    try:
        data = storage.read_bytes(url)
    except MissingDataError as error:
        raise MissingDataError(f"{url} does not exist; {MAKERS[manifest.kind]}") from error
    if hashlib.sha256(data).hexdigest() != shard.index_sha256:
        otherwise = "does not match the manifest's hash; make the index again"
        raise DataError(explained(url, data[:HEAD], otherwise))
    try:
        table = table_from(data)
    except (ValueError, TypeError, OverflowError, EOFError) as error:
        raise DataError(f"{url} is no table ({error}); make the index again") from error
    if len(table) != shard.samples:
        raise DataError(f"{url} has {len(table)} rows, the manifest {shard.samples}; index again")
    return table


def table_from(data: bytes) -> NDArray[np.void]:
    """Parse what `index_bytes` wrote; ValueError, TypeError, OverflowError, EOFError otherwise."""
    with _READING_HEADER:
        table: NDArray[np.void] = np.load(io.BytesIO(data), allow_pickle=False)
    return table


def keys_of(table: NDArray[np.void]) -> list[str]:
    """Return an index's keys as text."""
    return [key.decode() for key in table["key"].tolist()]
