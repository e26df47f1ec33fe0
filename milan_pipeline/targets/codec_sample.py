"""The sample of targets that a codec is fitted to: those of the first images by their keys' hashes.

So it is the same for extraction and for transcoding, on any machine and in any order of work, and a
codec can be measured on images that are not in the sample. A store may have any number of units:
one is read after another, and no more of it than the sample needs.

Legend: n samples, N tokens, T tokens of the sample, D target width.
"""

import contextlib
import heapq
from collections.abc import Generator, Iterable, Sequence

import numpy as np
import torch
import xxhash

from milan_pipeline import storage
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import DataError
from milan_pipeline.targets.reader import open_unit, remedy_of
from milan_pipeline.targets.stored_codes import decoded_targets
from milan_pipeline.targets.units import AnyMark, Unit

SAMPLE_IMAGES = 1024
SAMPLE_TOKENS = 65536
"""Enough for each of the 256 centres of k-means; fitting takes a minute or two."""
UNFITTED = "nothing is fitted yet"
KEY_THREADS, TARGET_THREADS = 8, 4
"""Units that are read at a time, since each is a few round trips; targets take more memory."""


def rows_by_hash(
    keys: Iterable[tuple[str, Sequence[str]]], first: int, count: int = SAMPLE_IMAGES
) -> dict[str, list[int]]:
    """Choose images in the order of the hashes of their (shard, key).

    Args:
        keys: the stem of each image shard, and the keys of its samples; not kept.
        first: how many images to skip.
        count: how many images to take, if there are as many.

    Returns:
        The chosen rows of each shard, ascending; shards without any are left out.
    """
    hashed = (
        (xxhash.xxh3_64_intdigest(f"{stem}/{key}".encode()), stem, row)
        for stem, own in keys
        for row, key in enumerate(own)
    )
    chosen: dict[str, list[int]] = {}
    for _, stem, row in heapq.nsmallest(first + count, hashed)[first:]:
        chosen.setdefault(stem, []).append(row)
    return {stem: sorted(rows) for stem, rows in sorted(chosen.items())}


def subsampled(tokens_nND: torch.Tensor) -> torch.Tensor:
    """Draw at most `SAMPLE_TOKENS` tokens with a fixed seed; return them in order: (T, D)."""
    return _drawn([tokens_nND], len(tokens_nND))


def stored_tokens(
    url: str, units: Sequence[tuple[Unit, AnyMark]], codec: Codec, stop: StopRequest
) -> torch.Tensor:
    """Return the tokens (T, D), float32, that a codec is fitted to.

    They are `subsampled` of `stored_sample`, without the memory that all its tokens take.

    Args:
        url: the store.
        units: finished units of one view, with their marks.
        codec: that of the store.
        stop: asked before each unit, since there may be many that are far away.

    Raises:
        DataError, StorageError: as `stored_sample`.
        InterruptedRunError: a stop was asked for.
    """
    chosen = _chosen(url, stop.between(units, UNFITTED), 0, SAMPLE_IMAGES)
    known = {unit.shard.stem: (unit, mark) for unit, mark in units}
    rows = stop.between(chosen.items(), UNFITTED)
    with contextlib.closing(_decoded(url, known, codec, rows)) as parts:
        return _drawn(parts, sum(map(len, chosen.values())))


def stored_sample(
    url: str,
    units: Sequence[tuple[Unit, AnyMark]],
    codec: Codec,
    *,
    first: int = 0,
    count: int = SAMPLE_IMAGES,
) -> torch.Tensor:
    """Decode the targets (n, N, D), float32, of some images of a store, chosen by hash.

    Args:
        url: the store.
        units: finished units of one view, with their marks.
        codec: that of the store.
        first: see `rows_by_hash`.
        count: see `rows_by_hash`.

    Raises:
        DataError: an object of the store is missing or damaged.
        StorageError: the store cannot be read.
    """
    chosen = _chosen(url, units, first, count)
    known = {unit.shard.stem: (unit, mark) for unit, mark in units}
    with contextlib.closing(_decoded(url, known, codec, chosen.items())) as parts:
        return torch.cat(list(parts))


def _chosen(
    url: str, units: Iterable[tuple[Unit, AnyMark]], first: int, count: int
) -> dict[str, list[int]]:
    """Read the keys of all units, and choose rows of some."""

    def keys_of(item: tuple[Unit, AnyMark]) -> tuple[str, list[str]]:
        unit, mark = item
        return unit.shard.stem, open_unit(url, unit, mark).keys()

    with contextlib.closing(
        ordered_map(keys_of, units, workers=KEY_THREADS, ahead=2 * KEY_THREADS)
    ) as keys:
        return rows_by_hash(keys, first, count)


def _decoded(
    url: str,
    known: dict[str, tuple[Unit, AnyMark]],
    codec: Codec,
    chosen: Iterable[tuple[str, list[int]]],
) -> Generator[torch.Tensor, None, None]:
    """Yield the targets (n, N, D) of the chosen rows, unit by unit in the order that is given."""

    def decoded(item: tuple[str, list[int]]) -> torch.Tensor:
        stem, rows = item
        unit, mark = known[stem]
        stored = open_unit(url, unit, mark, by_chunk=True)
        try:
            return decoded_targets(stored, codec, rows)
        except DataError:
            raise
        except ValueError as error:  # zarr's, of a checksum
            place = storage.join(url, unit.path)
            raise DataError(
                f"{place} is damaged ({error}); {remedy_of(url, unit, mark)}"
            ) from error

    return ordered_map(decoded, chosen, workers=TARGET_THREADS, ahead=TARGET_THREADS)


def _drawn(parts: Iterable[torch.Tensor], samples: int) -> torch.Tensor:
    """Draw tokens (T, D) of parts (n, N, D) that have so many samples together."""
    found: list[torch.Tensor] = []
    at, drawn = 0, np.empty(0, dtype=np.int64)
    for part_nND in parts:
        tokens_TD = part_nND.flatten(0, 1)
        if not found:
            total = samples * part_nND.shape[1]
            drawn = _draw(total)
        inside = drawn[(drawn >= at) & (drawn < at + len(tokens_TD))] - at
        found.append(tokens_TD[torch.from_numpy(inside)])
        at += len(tokens_TD)
    return torch.cat(found)


def _draw(total: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Draw the numbers of at most `SAMPLE_TOKENS` of so many tokens, in order."""
    if total <= SAMPLE_TOKENS:
        return np.arange(total)
    random = np.random.Generator(np.random.PCG64(0))
    return np.sort(random.choice(total, SAMPLE_TOKENS, replace=False))
