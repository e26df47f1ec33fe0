"""Labelled samples of image shards: their indices have the labels.

Indices of version 0.1.0 have none. Such a shard is read once from end to end, its hash is checked,
and the index that it would have now is kept in the run folder.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.shards.cache import ShardFile
from milan_pipeline.shards.index import (
    CLASS_FIELD,
    MASK_FIELDS,
    index_bytes,
    index_table,
    load_index,
    table_from,
)
from milan_pipeline.shards.labels import Label, MemberPlace, label_of, require_label
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.presence import require_present
from milan_pipeline.shards.random_access import Read
from milan_pipeline.shards.sequential import image_member, scan_shard

THREADS = 8


@dataclasses.dataclass(frozen=True)
class ShardPart:
    """The labelled samples of an image shard.

    Attributes:
        file: the shard.
        rows: its index, with labels.
        labels: (n,) class numbers; zeros where labels are masks, also of samples that have both.
    """

    file: ShardFile
    rows: NDArray[np.void]
    labels: NDArray[np.int64]

    @property
    def url(self) -> str:
        """Where the shard lies."""
        return self.file.url

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, row: int) -> str:
        """Return a sample's key."""
        key: bytes = self.rows["key"][row]
        return key.decode()

    def name(self, row: int) -> str:
        """Return the shard's file and a sample's key."""
        return f"{storage.basename(self.url)}/{self.key(row)}"

    def lengths(self) -> NDArray[np.int64]:
        """Return the bytes of each image, (n,)."""
        lengths: NDArray[np.int64] = self.rows["length"].astype(np.int64)
        return lengths

    def digest(self, row: int) -> int:
        """Return the xxh3-64 of an image's bytes."""
        return int(self.rows["xxh3"][row])

    def image(self, row: int, read: Read) -> bytes:
        """Read a sample's image, checked by its hash."""
        return read(self.file, *(int(self.rows[name][row]) for name in MemberPlace._fields))

    def mask(self, row: int, read: Read) -> bytes:
        """Read a sample's mask, checked by its hash."""
        return read(self.file, *(int(self.rows[name][row]) for name in MASK_FIELDS))

    def take(self, rows_n: NDArray[np.int64]) -> "ShardPart":
        """Return the part with only these samples."""
        return ShardPart(self.file, self.rows[rows_n], self.labels[rows_n])

    def shuffled(self, seed: int) -> "ShardPart":
        """Return the part as it is, since samples of a tar are read fastest in their own order."""
        del seed
        return self


def labelled_shards(manifest: Manifest, *, kind: str, scans: Path | None) -> list[ShardPart]:
    """Open the indices of all shards, which have the labels.

    Args:
        manifest: of image shards.
        kind: "class" or "mask"; a sample without its own label is an error.
        scans: folder that keeps the labels of shards whose index has none; None keeps nothing.

    Raises:
        DataError: a shard or an index is not the one that the manifest lists, or a sample has no
            label.
        MissingDataError: a shard or an index is not there.
    """

    def opened(shard: Shard) -> ShardPart:
        file = ShardFile(manifest.url_of(shard), shard.bytes, shard.sha256)
        table = load_index(manifest, shard)
        numbers_n = np.zeros(len(table), dtype=np.int64)
        if not len(table):  # the fields of labels are there only if a sample has one
            return ShardPart(file, table, numbers_n)
        if not _has_labels(table, kind):
            table = _scanned(manifest, shard, kind, scans)
        _require_labels(table, kind, file.url)
        return ShardPart(file, table, table[CLASS_FIELD] if kind == "class" else numbers_n)

    require_present(manifest, (shard.name for shard in manifest.shards))
    parts = []
    work = ordered_map(opened, manifest.shards, workers=THREADS, ahead=2 * THREADS)
    with progress_bar("labels", total=manifest.samples) as bar:
        for part in work:
            parts.append(part)
            bar.update(len(part))
    return parts


def _has_labels(table: NDArray[np.void], kind: str) -> bool:
    return (CLASS_FIELD if kind == "class" else MASK_FIELDS[0]) in (table.dtype.names or ())


def _require_labels(table: NDArray[np.void], kind: str, shard: str) -> None:
    missing_n = table[CLASS_FIELD] < 0 if kind == "class" else table[MASK_FIELDS[1]] == 0
    if missing_n.any():
        key: bytes = table["key"][int(np.argmax(missing_n))]
        require_label(Label(), kind, key.decode(), shard)


def _scanned(manifest: Manifest, shard: Shard, kind: str, scans: Path | None) -> NDArray[np.void]:
    """Return the index with labels of a shard whose own index has none, from `scans` if there."""
    name = hashlib.sha256(f"{kind} {shard.sha256}".encode()).hexdigest()[:32]
    stored = None if scans is None else _stored(scans / f"{name}.npy")
    if stored is not None:
        return stored
    rows, labels = [], []
    for row, label in _labelled_rows(manifest, shard, kind):
        rows.append(row)
        labels.append(label)
    table = index_table(rows, labels)
    if scans is not None:
        data = index_bytes(table)
        storage.put_bytes(str(scans / f"{name}.npy"), hashlib.sha256(data).digest() + data)
    return table


def _labelled_rows(
    manifest: Manifest, shard: Shard, kind: str
) -> Iterator[tuple[tuple[str, int, int, int], Label]]:
    for sample, offsets in scan_shard(manifest, shard):
        image = image_member(sample.members, shard.details.get("image_field"))
        if image is None:
            continue
        label, data = label_of(sample.members, offsets), sample.members[image]
        require_label(label, kind, sample.key, manifest.url_of(shard))
        place = offsets[image], len(data), xxhash.xxh3_64_intdigest(data)
        yield (sample.key, *place), label


def _stored(path: Path) -> NDArray[np.void] | None:
    """Return the table of an earlier scan; None if there was none, or if its file is damaged."""
    if not storage.exists(str(path)):
        return None
    data = storage.read_bytes(str(path))
    digest, data = data[:32], data[32:]
    return table_from(data) if hashlib.sha256(data).digest() == digest else None
