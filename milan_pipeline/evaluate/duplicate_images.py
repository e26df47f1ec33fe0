"""Finds images to score on that are also images to train on, byte for byte."""

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.errors import DataError, MismatchError, MissingDataError, StorageError
from milan_pipeline.evaluate.sample_checks import chosen_rows
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import Manifest

THREADS = 8
MOST_READ = 5000
"""Images to learn from that are read at most: of those that have the length of one to score on."""


def copies(
    train: LabelledTable, val: LabelledTable, *, most_read: int = MOST_READ
) -> tuple[int, int]:
    """Count the images to score on that are among those to learn from, and those compared.

    `SAMPLED` images to score on are compared at most; of shards, nothing is read but indices.

    Args:
        train: to learn from.
        val: to score on.
        most_read: images of `train` that are read at most.
    """
    looked = np.array(sorted(chosen_rows(val, sampled=True)), dtype=np.int64)
    lengths = _lengths(train)
    alike = np.flatnonzero(np.isin(lengths, _lengths(val)[looked]))[:most_read]
    looked_alike = looked[np.isin(_lengths(val)[looked], lengths[alike])]
    learnt = set(_digests(train, alike))
    return sum(digest in learnt for digest in _digests(val, looked_alike)), len(looked)


def copies_of_shards(train: Manifest, val: Manifest) -> int | None:
    """Count the images to score on that are among those to learn from, by the shards' indices.

    Returns:
        None where that is not known: a manifest is not in a local folder, so that each index would
        be a request; or an index cannot be read.
    """
    if any(storage.local_path(manifest.folder) is None for manifest in (train, val)):
        return None
    try:
        learnt, scored = (_hashes(manifest) for manifest in (train, val))
    except (DataError, MissingDataError, MismatchError, StorageError):
        return None
    return int(np.isin(scored, learnt).sum())


def _hashes(manifest: Manifest) -> NDArray[np.uint64]:
    """Return the xxh3-64 of all images of shards."""
    tables = ordered_map(
        lambda shard: load_index(manifest, shard)["xxh3"].copy(),
        manifest.shards,
        workers=THREADS,
        ahead=2 * THREADS,
    )
    return np.concatenate([np.zeros(0, dtype=np.uint64), *tables])


def _lengths(table: LabelledTable) -> NDArray[np.int64]:
    return np.concatenate([part.lengths() for part in table.parts])


def _digests(table: LabelledTable, numbers: NDArray[np.int64]) -> list[int]:
    """Return the hashes of some images, by their numbers in the table."""
    bounds = np.concatenate([[0], np.cumsum(table.counts(0))])
    parts = np.searchsorted(bounds, numbers, side="right") - 1
    return [
        table.parts[part].digest(int(number - bounds[part]))
        for part, number in zip(parts, numbers, strict=True)
    ]
