"""The shards of a manifest as columns: they take 100 bytes for each shard, objects take 1,000.

Training needs no more of a shard than its name, counts and hashes before it reads from it.

Legend: n shards, t target shards, H bytes of a hash.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.schema import Count, DocumentError, conforming
from milan_pipeline.images.budget import Skipped
from milan_pipeline.shards.cache import ShardFile
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import MANIFEST_NAME, Manifest, Shard, read_manifest
from milan_pipeline.shards.presence import require_present
from milan_pipeline.shards.random_access import all_local

HASH_BYTES = 32
SPARE = 8
"""A column that grows gets room for an eighth more rows than it needs."""
Columns = dict[str, NDArray[Any]]


class ShardRow(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a manifest has of a shard."""

    name: str
    samples: Count
    bytes: Count
    sha256: str
    index_sha256: str
    details: Any = None


class _TargetDetails(msgspec.Struct, gc=False):
    view: Count
    source: str
    source_sha256: str
    skipped: list[Skipped]
    identity_hash: str | None = None


class TargetRow(ShardRow, gc=False):
    """What a manifest has of a target shard."""

    details: _TargetDetails


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardColumns:
    """The shards of a manifest.

    Attributes:
        head: the manifest without its shards.
        names_n: names, UTF-8.
        samples_n: samples of each shard.
        bytes_n: bytes of each tar.
        sha256_nH: hashes of the tars, (n, 32) uint8.
        index_sha256_nH: hashes of their indices.
    """

    head: Manifest
    names_n: NDArray[np.bytes_]
    samples_n: NDArray[np.int64]
    bytes_n: NDArray[np.int64]
    sha256_nH: NDArray[np.uint8]
    index_sha256_nH: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names_n)

    @property
    def sha256(self) -> str:
        """The hash of all that the manifest lists."""
        return self.head.sha256

    def shard(self, number: int) -> Shard:
        """Return one shard, without its details."""
        return Shard(
            name=text_of(self.names_n[number]),
            samples=int(self.samples_n[number]),
            bytes=int(self.bytes_n[number]),
            sha256=self.sha256_nH[number].tobytes().hex(),
            index_sha256=self.index_sha256_nH[number].tobytes().hex(),
        )

    def file(self, number: int) -> ShardFile:
        """Return where the tar of a shard lies."""
        shard = self.shard(number)
        return ShardFile(self.head.url_of(shard), shard.bytes, shard.sha256)

    def index(self, number: int) -> NDArray[np.void]:
        """Read the index of a shard; raises as `load_index` does."""
        return load_index(self.head, self.shard(number))

    def require_present(self, numbers: NDArray[np.int64] | None = None) -> None:
        """Refuse shards, all or some, whose files are not there; see `presence`."""
        names_n = self.names_n if numbers is None else self.names_n[np.unique(numbers)]
        require_present(self.head, map(text_of, names_n.tolist()))

    def is_local(self) -> bool:
        """Tell whether all tars lie on this machine."""
        elsewhere = (name for name in self.names_n if name.startswith(b"/") or b"://" in name)
        here = storage.join(self.head.folder, MANIFEST_NAME)
        return all_local(itertools.chain([here], map(text_of, elsewhere)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetColumns:
    """The target shards of a manifest, and what they were made of.

    Attributes:
        shards: the shards.
        view_t: the view of each.
        source_t: the stem of the image shard that each was made of, UTF-8.
        source_sha256_tH: hash that the image shard's tar had then.
        skipped_t: how many images of it have no target.
        skipped: keys of the images without a target, by number of the shard.
        identities: the hashes of identities that shards state, each with the first such shard.
    """

    shards: ShardColumns
    view_t: NDArray[np.int64]
    source_t: NDArray[np.bytes_]
    source_sha256_tH: NDArray[np.uint8]
    skipped_t: NDArray[np.int64]
    skipped: dict[int, tuple[str, ...]]
    identities: dict[str | None, str]


def read_image_columns(url: str) -> ShardColumns:
    """Read the manifest of image shards; see `manifest.load_manifest` for what it raises."""
    found = GrowingColumns(_columns_of([]))
    head = read_manifest(
        url, lambda rows: found.add(_columns_of(conforming(rows, list[ShardRow]))), kind="images"
    )
    return ShardColumns(head=head, **found.whole())


def read_target_columns(url: str) -> TargetColumns:
    """Read the manifest of target shards; see `manifest.load_manifest` for what it raises."""
    found = _Targets()
    head = read_manifest(
        url, lambda rows: found.take(conforming(rows, list[TargetRow])), kind="targets"
    )
    return found.columns(head)


def ends(column_n: NDArray[Any]) -> list[int]:
    """Return the numbers of the first and the last row of a column, if there are any."""
    count = len(column_n)
    return sorted({0, count - 1}) if count else []


def text_of(name: bytes) -> str:
    """Return a name of a column as text."""
    return name.decode("utf-8", "surrogatepass")


def texts(values: list[str]) -> NDArray[np.bytes_]:
    """Return texts as a column, which `text_of` reads."""
    return np.array([value.encode("utf-8", "surrogatepass") for value in values], dtype=np.bytes_)


class GrowingColumns:
    """Columns that grow in place; to keep parts and concatenate them takes twice the memory."""

    def __init__(self, empty: Columns) -> None:
        self._columns = {name: column.copy() for name, column in empty.items()}
        self._count = 0

    def add(self, part: Columns) -> None:
        """Append rows to each column."""
        start, count = self._count, len(next(iter(part.values())))
        self._count += count
        for name, rows in part.items():
            column = self._columns[name]
            if column.dtype.itemsize < rows.dtype.itemsize:  # longer names
                column = self._columns[name] = column.astype(rows.dtype)
            if len(column) < self._count:
                _resize(column, self._count + self._count // SPARE)
            column[start : self._count] = rows

    def whole(self) -> Columns:
        """Return the columns, without room for more rows."""
        for column in self._columns.values():
            _resize(column, self._count)
        return self._columns


def _resize(column: NDArray[Any], count: int) -> None:
    column.resize((count, *column.shape[1:]), refcheck=False)  # nobody else has seen it


class _Targets:
    """Collects the columns of target shards part by part."""

    def __init__(self) -> None:
        self._columns = GrowingColumns(_columns_of([]) | _target_columns_of([]))
        self._count = 0
        self._skipped: dict[int, tuple[str, ...]] = {}
        self._identities: dict[str | None, str] = {}

    def take(self, rows: list[TargetRow]) -> None:
        self._columns.add(_columns_of(rows) | _target_columns_of(rows))
        for number, row in enumerate(rows, start=self._count):
            self._identities.setdefault(row.details.identity_hash, row.name)
            if row.details.skipped:
                self._skipped[number] = tuple(each["key"] for each in row.details.skipped)
        self._count += len(rows)

    def columns(self, head: Manifest) -> TargetColumns:
        columns = self._columns.whole()
        own = {name: columns.pop(name) for name in _target_columns_of([])}
        return TargetColumns(
            shards=ShardColumns(head=head, **columns),
            **own,
            skipped=self._skipped,
            identities=self._identities,
        )


def _columns_of(rows: Sequence[ShardRow]) -> Columns:
    return {
        "names_n": texts([row.name for row in rows]),
        "samples_n": np.array([row.samples for row in rows], dtype=np.int64),
        "bytes_n": np.array([row.bytes for row in rows], dtype=np.int64),
        "sha256_nH": _hashes([row.sha256 for row in rows]),
        "index_sha256_nH": _hashes([row.index_sha256 for row in rows]),
    }


def _target_columns_of(rows: Sequence[TargetRow]) -> Columns:
    return {
        "view_t": np.array([row.details.view for row in rows], dtype=np.int64),
        "source_t": texts([row.details.source for row in rows]),
        "source_sha256_tH": _hashes([row.details.source_sha256 for row in rows]),
        "skipped_t": np.array([len(row.details.skipped) for row in rows], dtype=np.int64),
    }


def _hashes(values: list[str]) -> NDArray[np.uint8]:
    try:
        data = bytes.fromhex("".join(values))
    except ValueError as error:
        raise DocumentError(f"a hash is not hexadecimal: {error}") from error
    if not {2 * HASH_BYTES}.issuperset(map(len, values)) or len(data) != HASH_BYTES * len(values):
        raise DocumentError("a hash is no sha256")
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, HASH_BYTES)
