"""The sample of targets that a codec is fitted to: those of the first images by their keys' hashes.

So it is the same for extraction and for transcoding, on any machine and in any order of work, and a
codec can be measured on images that are not in the sample. A store may have any number of units:
one is read after another, and no more of it than the sample needs.

Legend: n samples, N tokens (CLS first), L patches, M drawn tokens of a sample, D target width.
"""

import contextlib
import heapq
from collections.abc import Generator, Iterable, Sequence

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import DataError
from milan_pipeline.targets.reader import open_unit, remedy_of
from milan_pipeline.targets.stored_codes import decoded_targets
from milan_pipeline.targets.units import AnyMark, Unit

SAMPLE_IMAGES, MOST_IMAGES = 1024, 4096
SAMPLE_PATCHES = 65536
"""Of a sample of single tokens."""
WHOLE_PATCHES = 262144
"""Of a sample of whole images: 4,096 images of 64 patches, 1,337 of 196."""
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


def sample_images(patches: int) -> int:
    """Return how many whole images of L patches a codec is fitted to."""
    return max(1, min(MOST_IMAGES, WHOLE_PATCHES // max(1, patches)))


def subsampled(tokens_nND: torch.Tensor) -> torch.Tensor:
    """Draw at most `SAMPLE_PATCHES` patches with a fixed seed, as many of each sample.

    Returns:
        Each sample's CLS and its drawn patches in order: (n, M, D).
    """
    return _drawn([tokens_nND], len(tokens_nND))


def stored_tokens(
    url: str, units: Sequence[tuple[Unit, AnyMark]], codec: Codec, stop: StopRequest
) -> torch.Tensor:
    """Return tokens (n, M, D), float32, of the sample.

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


def stored_images(
    url: str,
    units: Sequence[tuple[Unit, AnyMark]],
    codec: Codec,
    patches: int,
    stop: StopRequest,
) -> torch.Tensor:
    """Return the targets (n, N, D), float32, that a codec is fitted to.

    Args:
        url: the store.
        units: finished units of one view, with their marks.
        codec: that of the store.
        patches: L.
        stop: asked before each unit.

    Raises:
        DataError, StorageError: as `stored_sample`.
        InterruptedRunError: a stop was asked for.
    """
    count = sample_images(patches)
    chosen = _chosen(url, stop.between(units, UNFITTED), 0, count)
    known = {unit.shard.stem: (unit, mark) for unit, mark in units}
    rows = stop.between(chosen.items(), UNFITTED)
    with contextlib.closing(_decoded(url, known, codec, rows)) as parts:
        return torch.cat(list(parts))


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
    """Draw tokens (n, M, D) of parts (·, N, D) that have so many samples together."""
    found: list[torch.Tensor] = []
    random = np.random.Generator(np.random.PCG64(0))
    for part_nND in parts:
        count, tokens, width = part_nND.shape
        rows_nM = _draw(count, tokens - 1, SAMPLE_PATCHES // max(1, samples), random)
        index_nMD = torch.from_numpy(rows_nM)[..., None].expand(-1, -1, width)
        found.append(part_nND.gather(1, index_nMD))
    return torch.cat(found)


def _draw(samples: int, patches: int, most: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw the numbers (n, M) of CLS and of at most so many patches of each sample, in order."""
    if patches <= most:
        return np.tile(np.arange(1 + patches), (samples, 1))
    drawn = random.random((samples, patches)).argsort(axis=1)[:, : max(1, most)]
    return np.pad(1 + np.sort(drawn, axis=1), ((0, 0), (1, 0)))
