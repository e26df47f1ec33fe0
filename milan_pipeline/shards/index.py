"""The index of a shard: a plain `.npy` table with one row a sample, its key, place and hash."""

import hashlib
import io
import threading

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.errors import DataError
from milan_pipeline.shards.manifest import Manifest, Shard

# np.load parses headers with `ast`, which CPython 3.11 may fail at in several threads at once.
_READING_HEADER = threading.Lock()


def index_table(rows: list[tuple[str, int, int, int]]) -> NDArray[np.void]:
    """Build an index from (key, byte offset, length, xxh3-64) rows."""
    width = max((len(row[0].encode()) for row in rows), default=1)
    dtype = [("key", f"S{width}"), ("offset", "<i8"), ("length", "<i8"), ("xxh3", "<u8")]
    encoded = [(key.encode(), offset, length, digest) for key, offset, length, digest in rows]
    return np.array(encoded, dtype=dtype)


def index_bytes(table: NDArray[np.void]) -> bytes:
    """Serialise an index as `.npy`."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def load_index(manifest: Manifest, shard: Shard) -> NDArray[np.void]:
    """Read and verify a shard's index: fields key (bytes), offset, length, xxh3; in file order.

    Raises:
        DataError: it is not the index that the manifest lists.
    """
    url = manifest.index_url_of(shard)
    data = storage.read_bytes(url)
    if hashlib.sha256(data).hexdigest() != shard.index_sha256:
        raise DataError(f"{url} does not match the manifest's hash; make the index again")
    try:
        with _READING_HEADER:
            table: NDArray[np.void] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, TypeError, OverflowError, EOFError) as error:
        raise DataError(f"{url} is no table ({error}); make the index again") from error
    if len(table) != shard.samples:
        raise DataError(f"{url} has {len(table)} rows, the manifest {shard.samples}; index again")
    return table


def keys_of(table: NDArray[np.void]) -> list[str]:
    """Return an index's keys as text."""
    return [key.decode() for key in table["key"].tolist()]
