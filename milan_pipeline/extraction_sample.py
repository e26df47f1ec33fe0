"""Targets of a sample of images, before there is a store: what extraction fits a codec to.

Legend: n images, B of a batch, N tokens, D target width, S pixels.
"""

import contextlib
import itertools
from collections.abc import Iterator

import torch

from milan_pipeline.codec_sample import SAMPLE_IMAGES, rows_by_hash
from milan_pipeline.crops import view_pixels
from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.extraction_job import TargetTeacher
from milan_pipeline.images import decode_rgb
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.manifest import Manifest, keys_of, load_index
from milan_pipeline.parallel import ordered_map
from milan_pipeline.progress import progress_bar
from milan_pipeline.shard_reading import read_rows
from milan_pipeline.views import ViewPolicy


def extracted_sample(
    images: Manifest,
    teacher: TargetTeacher,
    policy: ViewPolicy,
    *,
    batch_size: int,
    workers: int,
    stop: StopRequest,
) -> torch.Tensor:
    """Run the teacher over view 0 of the first images by hash.

    Args:
        images: of the image shards.
        teacher: whose targets they are.
        policy: how views are cut.
        batch_size: images in a teacher batch.
        workers: decoding threads.
        stop: asked after each batch.

    Returns:
        Targets (n, N, D), float32, on the CPU; an image that cannot be decoded is passed over.

    Raises:
        DataError: no image could be decoded, or a shard or an index is damaged.
        InterruptedRunError: a stop was asked for.
        StorageError: a shard cannot be read.
    """
    tables = {shard.stem: load_index(images, shard) for shard in images.shards}
    rows = rows_by_hash({stem: keys_of(table) for stem, table in tables.items()}, 0)
    urls = {shard.stem: images.url_of(shard) for shard in images.shards}
    keys = {stem: keys_of(tables[stem][chosen]) for stem, chosen in rows.items()}
    stems = list(rows)

    def view(row: tuple[int, int, bytes]) -> torch.Tensor | None:
        shard, number, data = row
        try:
            rgb_HWC = decode_rgb(data)
        except BadImageError:
            return None
        height, width = rgb_HWC.shape[0], rgb_HWC.shape[1]
        box = policy.box(height, width, keys[stems[shard]][number], 0)
        return view_pixels(rgb_HWC, box, teacher.image_size)

    found: list[torch.Tensor] = []
    total = min(SAMPLE_IMAGES, images.samples)
    read = read_rows((urls[stem], tables[stem][rows[stem]]) for stem in stems)
    decoded = ordered_map(view, read, workers=workers, ahead=2 * batch_size)
    with (
        contextlib.closing(read),
        contextlib.closing(decoded) as views,
        progress_bar("targets to fit the codec to", total=total) as bar,
    ):
        for batch in _batches(views, batch_size):
            stop.raise_if_asked("nothing was written yet")
            pixels_BCSS = torch.stack(batch)
            found.append(teacher(pixels_BCSS.to(teacher.device))[0].float().cpu())
            bar.update(len(batch))
    if not found:
        raise DataError(
            f"{images.folder} has no image that can be decoded, so that no codec can be fitted; "
            "give other images, or --codec int8"
        )
    return torch.cat(found)


def _batches(views: Iterator[torch.Tensor | None], size: int) -> Iterator[list[torch.Tensor]]:
    good = (view for view in views if view is not None)
    while batch := list(itertools.islice(good, size)):
        yield batch
