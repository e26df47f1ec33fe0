"""The extraction loop: read -> decode and crop -> teacher -> encode -> write, overlapped.

Decoding runs in threads ahead of the teacher, across unit boundaries; writing runs in one thread
behind it. A batch never straddles two units, so a unit's bytes do not depend on which others are
done in the same run.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from milan_pipeline.codecs import Codec
from milan_pipeline.crops import view_pixels
from milan_pipeline.errors import BadImageError
from milan_pipeline.images import decode_rgb
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.ledger import BadImageBudget
from milan_pipeline.manifest import Manifest, keys_of, load_index
from milan_pipeline.parallel import ordered_map
from milan_pipeline.shards import SampleReader
from milan_pipeline.target_store import UnitBlock, UnitWriter
from milan_pipeline.teacher import Teacher
from milan_pipeline.units import Mark, Unit
from milan_pipeline.views import Box, ViewPolicy


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionJob:
    """Everything that the loop needs; the same job on the same unit writes the same bytes."""

    manifest: Manifest
    store: str
    identity_hash: str
    teacher: Teacher
    policy: ViewPolicy
    codec: Codec
    batch_size: int
    workers: int


class _Decoded(NamedTuple):
    """One image's view, or why there is none."""

    unit: Unit
    key: str
    digest: int
    pixels: torch.Tensor | None
    box: Box | None
    size: tuple[int, int]
    reason: str


def _unwatched(_: int) -> None:
    """Nobody counts along."""


def extract_units(
    job: ExtractionJob,
    units: Sequence[Unit],
    budget: BadImageBudget,
    stop: StopRequest,
    seen: Callable[[int], object] = _unwatched,
) -> Generator[Mark, None, None]:
    """Extract units, yielding each one's mark as it is finished: empty ones first, then in order.

    Args:
        job: how.
        units: which ones.
        budget: is told of the images that cannot be read.
        stop: is asked before each batch.
        seen: is told how many images each batch had: progress bars and reports count by it.

    Raises:
        DataError: a shard is damaged, or more images are unreadable than the budget allows.
        InterruptedRunError: a stop signal came; finished units are kept.
    """
    decoded = ordered_map(
        lambda read: _decode(job, *read),
        _read_rows(job, units),
        workers=job.workers,
        ahead=max(4 * job.batch_size, 64),
    )
    with contextlib.closing(decoded), ThreadPoolExecutor(1) as writing:
        for unit in units:
            if unit.shard.samples == 0:
                yield _writer(job, unit).finish([])
        for unit, samples in itertools.groupby(decoded, key=lambda sample: sample.unit):
            writer = _writer(job, unit)
            skipped: list[dict[str, str]] = []
            written: Future[None] | None = None
            for batch in _batches(samples, job.batch_size, skipped):
                stop.raise_if_asked("finished units are kept")
                block = _targets(job, batch)
                if written is not None:
                    written.result()
                written = writing.submit(writer.add, block)
                seen(len(batch))
            if written is not None:
                written.result()
            mark = writer.finish(skipped)
            yield mark
            budget.add(mark.shard, mark.skipped)


def _writer(job: ExtractionJob, unit: Unit) -> UnitWriter:
    height, width = job.teacher.grid
    shape = (1 + height * width, job.codec.code_width(job.teacher.width))
    return UnitWriter(
        job.store, unit, identity_hash=job.identity_hash, codec=job.codec, shape=shape
    )


def _read_rows(job: ExtractionJob, units: Sequence[Unit]) -> Iterator[tuple[Unit, str, int, bytes]]:
    """Read every image of the units in order: (unit, key, digest, image bytes)."""
    reader = SampleReader()
    try:
        for unit in units:
            table = load_index(job.manifest, unit.shard)
            url = job.manifest.url_of(unit.shard)
            for key, row in zip(keys_of(table), table, strict=True):
                digest = int(row["xxh3"])
                data = reader.read(url, int(row["offset"]), int(row["length"]), digest)
                yield unit, key, digest, data
    finally:
        reader.close()


def _decode(job: ExtractionJob, unit: Unit, key: str, digest: int, data: bytes) -> _Decoded:
    try:
        rgb_HWC = decode_rgb(data)
    except BadImageError as error:
        return _Decoded(unit, key, digest, None, None, (0, 0), str(error))
    size = rgb_HWC.shape[0], rgb_HWC.shape[1]
    box = job.policy.box(*size, key, unit.view)
    pixels = view_pixels(rgb_HWC, box, job.teacher.image_size)
    return _Decoded(unit, key, digest, pixels, box, size, "")


def _batches(
    samples: Iterator[_Decoded], batch_size: int, skipped: list[dict[str, str]]
) -> Iterator[list[_Decoded]]:
    """Group readable samples into batches; unreadable ones go to the ledger."""
    batch: list[_Decoded] = []
    for sample in samples:
        if sample.pixels is None:
            skipped.append({"key": sample.key, "reason": sample.reason})
            continue
        batch.append(sample)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _targets(job: ExtractionJob, batch: list[_Decoded]) -> UnitBlock:
    """Run the teacher on a batch and encode its targets before they leave the device."""
    pixels_BCHW = torch.stack([sample.pixels for sample in batch if sample.pixels is not None])
    boxes = [sample.box for sample in batch if sample.box is not None]
    targets_BND, prior_BL = job.teacher(pixels_BCHW)
    codes_BNC, scale_BN = job.codec.encode(targets_BND)
    return UnitBlock(
        key=[sample.key for sample in batch],
        codes=codes_BNC.cpu().numpy(),
        scale=None if scale_BN is None else scale_BN.cpu().numpy(),
        prior=prior_BL.cpu().numpy(),
        box=np.array([(b.top, b.left, b.height, b.width) for b in boxes], dtype=np.float32),
        flip=np.array([b.flip for b in boxes], dtype=np.bool_),
        size=np.array([sample.size for sample in batch], dtype=np.int32),
        digest=np.array([sample.digest for sample in batch], dtype=np.uint64),
    )
