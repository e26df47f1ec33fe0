"""Compute targets of a sample of images, which extraction fits a codec to before there is a store.

Legend: n images, B of a batch, N tokens, D target width, S pixels.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ItemT, ResultT, ordered_map
from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.extraction.job import TargetTeacher
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.sequential import read_rows
from milan_pipeline.targets.codec_sample import SAMPLE_IMAGES, rows_by_hash

UNWRITTEN = "nothing was written yet"
INDEX_THREADS = 8
"""Indices that are read at a time, since each is a round trip to a remote store."""


def extracted_sample(
    images: Manifest,
    teacher: TargetTeacher,
    policy: ViewPolicy,
    *,
    batch_size: int,
    workers: int,
    stop: StopRequest,
    count: int = SAMPLE_IMAGES,
) -> torch.Tensor:
    """Run the teacher over view 0 of the first images by hash.

    Args:
        images: the manifest of the image shards.
        teacher: computes the targets.
        policy: how views are cut.
        batch_size: the most images in a teacher batch.
        workers: decoding threads.
        stop: asked before each index is read, and before each batch.
        count: the most images.

    Returns:
        Targets (n, N, D), float32, on the CPU; images that cannot be decoded are left out.

    Raises:
        DataError: no image could be decoded, or a shard or an index is damaged.
        InterruptedRunError: a stop was asked for.
        StorageError: a shard cannot be read.
    """
    shards = _sampled_rows(images, count, stop)
    keys = [keys_of(table) for _, table in shards]

    def view(row: tuple[int, int, bytes]) -> torch.Tensor | None:
        shard, number, data = row
        try:
            rgb_HWC = decode_rgb(data, keys[shard][number])
        except BadImageError:
            return None
        height, width = rgb_HWC.shape[0], rgb_HWC.shape[1]
        box = policy.box(height, width, keys[shard][number], 0)
        seen = policy.for_teacher(box)
        return view_pixels(rgb_HWC, seen, teacher.image_size, interpolation=teacher.interpolation)

    found: list[torch.Tensor] = []
    total = min(count, images.samples)
    rows = min(batch_size, total)
    read = read_rows(shards)
    decoded = ordered_map(view, read, workers=workers, ahead=2 * batch_size)
    with (
        contextlib.closing(read),
        contextlib.closing(decoded) as views,
        progress_bar("targets to fit the codec to", total=total) as bar,
    ):
        for batch in _batches(views, rows):
            stop.raise_if_asked(UNWRITTEN)
            # All batches have one shape: another shape would be compiled again, or give other last
            # bits on a GPU.
            padding = [torch.zeros_like(batch[0])] * (rows - len(batch))
            targets_BND, _ = teacher(torch.stack(batch + padding).to(teacher.device))
            found.append(targets_BND[: len(batch)].float().cpu())
            bar.update(len(batch))
    if not found:
        raise DataError(
            f"{images.folder} has no image that can be decoded, so that no codec can be fitted; "
            "give other images, or --codec int8"
        )
    return torch.cat(found)


def _sampled_rows(
    images: Manifest, count: int, stop: StopRequest
) -> list[tuple[str, NDArray[np.void]]]:
    """Return the URLs of shards, and the rows of the first images by hash in each shard's index."""
    chosen = rows_by_hash(
        _mapped(
            lambda shard: (shard.stem, keys_of(load_index(images, shard))),
            stop.between(images.shards, UNWRITTEN),
        ),
        0,
        count,
    )
    shards = [(shard, chosen[shard.stem]) for shard in images.shards if shard.stem in chosen]
    # Read again, since all indices together may not fit in memory.
    tables = _mapped(
        lambda item: load_index(images, item[0])[item[1]], stop.between(shards, UNWRITTEN)
    )
    found = {
        shard.stem: (images.url_of(shard), table)
        for (shard, _), table in zip(shards, tables, strict=True)
    }
    return [found[stem] for stem in chosen]


def _mapped(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
) -> Generator[ResultT, None, None]:
    return ordered_map(function, items, workers=INDEX_THREADS, ahead=2 * INDEX_THREADS)


def _batches(views: Iterator[torch.Tensor | None], size: int) -> Iterator[list[torch.Tensor]]:
    good = (view for view in views if view is not None)
    while batch := list(itertools.islice(good, size)):
        yield batch
