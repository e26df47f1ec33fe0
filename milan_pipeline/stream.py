"""Order + image shards + target shards -> batches, as a WebDataset pipeline.

Our source stage emits verified pairs in order; stock WebDataset stages decode and batch them and
its loader spreads the work over processes. A worker yields its lanes' part of each step, and the
parts are joined in lane order, so that the batches are the same for any number of workers.

Legend: B batch, K kept and M masked patches, N = 1 + L tokens, P = 3 * p * p pixels of a patch,
C code width.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import webdataset as wds
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from milan_pipeline.crops import view_pixels
from milan_pipeline.errors import MilanError, MismatchError
from milan_pipeline.images import decode_rgb
from milan_pipeline.masking import sample_kept
from milan_pipeline.order import EpochOrder, OrderConfig, StepClock, lanes_of, usable_workers
from milan_pipeline.pairs import PairTable
from milan_pipeline.shards import SampleReader
from milan_pipeline.student import patchify
from milan_pipeline.target_records import TARGET_EXTENSION, RecordLayout
from milan_pipeline.views import Box

IMAGE_MEMBER = "image"


class Batch(NamedTuple):
    """One rank's part of a global batch.

    Attributes:
        patches_BKP: uint8 pixels of the kept patches.
        kept_BK: int64 patch indices, ascending.
        masked_BM: int64 patch indices, ascending.
        codes_BNC: encoded targets.
        scale_BN: float16, or an empty tensor where the codec has no scale.
        keys: the samples.
    """

    patches_BKP: torch.Tensor
    kept_BK: torch.Tensor
    masked_BM: torch.Tensor
    codes_BNC: torch.Tensor
    scale_BN: torch.Tensor
    keys: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a stream depends on besides the pairs and their order.

    Attributes:
        image_size: height and width of the student's view, in pixels.
        patch_size: of the student.
        kept: K, visible patches.
        mask_seed: of the mask draws.
        layout: of the target records.
    """

    image_size: int
    patch_size: int
    kept: int
    mask_seed: int
    layout: RecordLayout


class PairSource(IterableDataset[dict[str, Any]]):
    """The source stage: emits this worker's samples of steps `first` to `last - 1`, in order."""

    def __init__(
        self, pairs: PairTable, order: OrderConfig, *, lanes: range, first: int, last: int
    ) -> None:
        self._pairs = pairs
        self._order = order
        self._lanes = lanes
        self._steps = range(first, last)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        lanes = self._lanes if info is None else lanes_of(info.id, info.num_workers, self._lanes)
        clock = step_clock(self._pairs, self._order)
        reader = SampleReader()
        current: tuple[int, EpochOrder] | None = None
        try:
            for step in self._steps:
                epoch, within = clock.locate(step)
                view = epoch % len(self._pairs.views)
                if current is None or current[0] != epoch:
                    current = (epoch, EpochOrder(self._pairs.counts(view), self._order, epoch))
                for lane in lanes:
                    for shard, pair in current[1].lane_step(lane, within).tolist():
                        yield self._read(reader, view, shard, pair, epoch=epoch)
        finally:
            reader.close()

    def _read(
        self, reader: SampleReader, view: int, shard: int, pair: int, *, epoch: int
    ) -> dict[str, Any]:
        pairs = self._pairs.views[view][shard]
        image = reader.read(pairs.image_url, *pairs.image_rows[pair].tolist())
        target = reader.read(pairs.target_url, *pairs.target_rows[pair].tolist())
        return {
            "__key__": pairs.keys[pair].decode(),
            "__url__": pairs.image_url,
            "epoch": epoch,
            IMAGE_MEMBER: image,
            "digest": int(pairs.image_rows[pair]["xxh3"]),
            TARGET_EXTENSION: target,
        }


def step_clock(pairs: PairTable, order: OrderConfig) -> StepClock:
    """Return how many steps each view's epochs have."""
    views = range(len(pairs.views))
    return StepClock(tuple(EpochOrder(pairs.counts(view), order, 0).steps for view in views))


def student_view(
    image: bytes, record: NDArray[np.void], *, image_size: int, digest: int, key: str
) -> torch.Tensor:
    """Cut the view that the teacher saw: (3, S, S) uint8.

    Raises:
        MismatchError: the target was made from other image bytes.
    """
    if int(record["digest"]) != digest:
        raise MismatchError(
            f"the target of {key!r} was made from other image bytes (digest "
            f"{int(record['digest']):016x}, now {digest:016x}); extract and pack it again"
        )
    top, left, height, width = (int(value) for value in record["box"])
    box = Box(top, left, height, width, bool(record["flip"]))
    return view_pixels(decode_rgb(image), box, image_size)


class ToExample:
    """Turn a raw pair into tensors: visible patches, mask, codes."""

    def __init__(self, config: StreamConfig) -> None:
        self._config = config

    def __call__(self, sample: dict[str, Any]) -> Batch:
        """Decode, crop, draw the mask; one example, without a batch dimension."""
        config, key = self._config, sample["__key__"]
        record = config.layout.from_bytes(sample[TARGET_EXTENSION])
        pixels = student_view(
            sample[IMAGE_MEMBER],
            record,
            image_size=config.image_size,
            digest=sample["digest"],
            key=key,
        )
        kept_K, masked_M = sample_kept(
            record["prior"], config.kept, seed=config.mask_seed, epoch=sample["epoch"], key=key
        )
        kept = torch.from_numpy(kept_K)
        scale = record["scale"] if config.layout.codec.has_scale else np.empty(0, np.float16)
        return Batch(
            patches_BKP=patchify(pixels, config.patch_size)[kept],
            kept_BK=kept,
            masked_BM=torch.from_numpy(masked_M),
            codes_BNC=torch.from_numpy(record["codes"].copy()),
            scale_BN=torch.from_numpy(scale.copy()),
            keys=[key],
        )


def stack(examples: list[Batch]) -> Batch:
    """Make a batch of single examples."""
    return _combine(examples, torch.stack)


def join(parts: list[Batch]) -> Batch:
    """Join workers' parts in lane order."""
    return _combine(parts, torch.cat)


def _combine(parts: list[Batch], together: Callable[[list[torch.Tensor]], torch.Tensor]) -> Batch:
    return Batch(
        patches_BKP=together([part.patches_BKP for part in parts]),
        kept_BK=together([part.kept_BK for part in parts]),
        masked_BM=together([part.masked_BM for part in parts]),
        codes_BNC=together([part.codes_BNC for part in parts]),
        scale_BN=together([part.scale_BN for part in parts]),
        keys=[key for part in parts for key in part.keys],
    )


def _carry_errors(parts: Iterator[Batch]) -> Iterator[Batch | MilanError]:
    """Pass our errors on as data: a loader would bury their sentence in a worker's traceback."""
    try:
        yield from parts
    except MilanError as error:
        yield error


def _next_part(loader: Iterator[Batch | MilanError]) -> Batch:
    part = next(loader)
    if isinstance(part, MilanError):
        raise part
    return part


def batches(
    pairs: PairTable,
    order: OrderConfig,
    config: StreamConfig,
    *,
    steps: range,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield this rank's part of each global batch of a range of steps.

    Args:
        pairs: what there is.
        order: seed and sizes of the order.
        config: sizes and seeds of the examples.
        steps: of the run, counted over epochs.
        workers: loader processes at most; fewer where they cannot share the lanes equally.
        rank: of this process.
        world: processes that share the lanes.
        pin_memory: copy batches to page-locked memory, for a GPU.
    """
    lanes = lanes_of(rank, world, range(order.lanes))
    workers = usable_workers(workers, len(lanes))
    parts = max(1, workers)
    source = PairSource(pairs, order, lanes=lanes, first=steps.start, last=steps.stop)
    pipeline = wds.DataPipeline(
        source,
        wds.map(ToExample(config)),
        wds.batched(len(lanes) // parts * order.per_lane, collation_fn=stack, partial=False),
        _carry_errors,
    )
    loader = iter(
        wds.WebLoader(pipeline, batch_size=None, num_workers=workers, pin_memory=pin_memory)
    )
    for _ in steps:
        yield join([_next_part(loader) for _ in range(parts)])
