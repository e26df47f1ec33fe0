"""Order + image shards + target shards -> batches, as a WebDataset pipeline.

Our source stage emits verified pairs in order; stock WebDataset stages decode and batch them and
its loader spreads the work over processes. A worker yields its lanes' part of each step, and the
parts are joined in lane order, so that the batches are the same for any number of workers.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any

import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from milan_pipeline.errors import MilanError, StorageError
from milan_pipeline.examples import IMAGE_MEMBER, Batch, ExampleConfig, ToExamples, join, stack
from milan_pipeline.interrupts import STOP_SIGNALS
from milan_pipeline.order import EpochOrder, OrderConfig, StepClock, lanes_of, usable_workers
from milan_pipeline.pair_reader import Place, read_pairs
from milan_pipeline.pairs import PairTable
from milan_pipeline.parallel import ordered_map
from milan_pipeline.shard_cache import CacheConfig
from milan_pipeline.target_records import TARGET_EXTENSION


class PairSource(IterableDataset[dict[str, Any]]):
    """The source stage: emits this worker's samples of a range of steps, in order."""

    def __init__(
        self,
        pairs: PairTable,
        order: OrderConfig,
        *,
        lanes: range,
        steps: range,
        cache: CacheConfig | None = None,
    ) -> None:
        self._pairs = pairs
        self._order = order
        self._lanes = lanes
        self._steps = steps
        self._cache = cache

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        lanes = self._lanes if info is None else lanes_of(info.id, info.num_workers, self._lanes)
        with contextlib.closing(read_pairs(self._pairs, self._places(lanes), self._cache)) as read:
            for place, image, target in read:
                shard = self._pairs.views[place.view][place.shard]
                yield {
                    "__key__": shard.keys[place.pair].decode(),
                    "__url__": shard.image_url,
                    "epoch": place.epoch,
                    IMAGE_MEMBER: image,
                    "digest": int(shard.image_rows["xxh3"][place.pair]),
                    TARGET_EXTENSION: target,
                }

    def _places(self, lanes: range) -> Iterator[Place]:
        """Yield where this worker's pairs lie: step by step, lane by lane."""
        clock = step_clock(self._pairs, self._order)
        current: tuple[int, EpochOrder] | None = None
        for step in self._steps:
            epoch, within = clock.locate(step)
            view = epoch % len(self._pairs.views)
            if current is None or current[0] != epoch:
                current = (epoch, EpochOrder(self._pairs.counts(view), self._order, epoch))
            for lane in lanes:
                for shard, pair in current[1].lane_step(lane, within).tolist():
                    yield Place(epoch, view, shard, pair)


def step_clock(pairs: PairTable, order: OrderConfig) -> StepClock:
    """Return how many steps each view's epochs have."""
    views = range(len(pairs.views))
    return StepClock(tuple(EpochOrder(pairs.counts(view), order, 0).steps for view in views))


def _carry_errors(parts: Iterator[Batch]) -> Iterator[Batch | MilanError]:
    """Pass our errors on as data: a loader would bury their sentence in a worker's traceback."""
    try:
        yield from parts
    except MilanError as error:
        # Anew, without its traceback: where tblib is there (dask brings it along) that would be
        # pickled, too, and keep alive the frames that unpickle it, and with them the workers.
        yield type(error)(*error.args)


@contextlib.contextmanager
def explained_worker_deaths() -> Iterator[None]:
    """Explain the death of a loader process.

    torch's signal handler reports it at any line, or reading what the process was sending fails.

    Raises:
        StorageError: a loader process was killed.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise StorageError(
            f"a loader process died ({str(error).strip()}), most often for want of memory; give "
            "fewer --workers or more memory, and run the same command again"
        ) from error


def _leave_stop_to_parent(_: int) -> None:
    """Let a worker heed its parent's signals alone: schedulers send theirs to every process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = os.getppid()

    def listen() -> None:
        while signal.sigwaitinfo(STOP_SIGNALS).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


def _next_part(loader: Iterator[Batch | MilanError]) -> Batch:
    part = next(loader)
    if isinstance(part, MilanError):
        raise part
    return part


def batches(
    pairs: PairTable,
    order: OrderConfig,
    config: ExampleConfig,
    *,
    steps: range,
    workers: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    cache: CacheConfig | None = None,
) -> Generator[Batch, None, None]:
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
        cache: keep what is read from the shards in a local folder.
    """
    lanes = lanes_of(rank, world, range(order.lanes))
    workers = usable_workers(workers, len(lanes))
    parts = max(1, workers)
    source = PairSource(pairs, order, lanes=lanes, steps=steps, cache=cache)
    pipeline = wds.DataPipeline(
        source,
        ToExamples(config),
        wds.batched(len(lanes) // parts * order.per_lane, collation_fn=stack, partial=False),
        _carry_errors,
    )
    loader = wds.WebLoader(
        pipeline,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_stop_to_parent,
    )
    # Closed at once, since workers that wait for the garbage collector outlive an error.
    with contextlib.closing(iter(loader)) as results:

        def joined(_: int) -> Batch:
            return join([_next_part(results) for _ in range(parts)])

        # The first batch is fetched here, since it starts the workers, and only where the main
        # thread does that torch sees them die at once. A thread fetches the next ones meanwhile.
        yield from map(joined, steps[:1])
        threads = min(1, workers)
        with contextlib.closing(ordered_map(joined, steps[1:], workers=threads, ahead=2)) as later:
            yield from later
