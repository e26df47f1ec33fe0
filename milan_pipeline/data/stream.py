"""Order + shards -> batches, as a WebDataset pipeline.

The source stage here emits verified samples in order. WebDataset's own stages decode and batch
them, and its loader spreads the work over processes. A worker yields its lanes' part of each step.
The parts are joined in lane order, so that batches are the same for any number of workers.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from milan_pipeline.cluster.world import World
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.batching import BatchT, join, stack
from milan_pipeline.data.loader_processes import (
    Part,
    carry_errors,
    explained_start,
    leave_stop_to_parent,
    next_part,
    start_fork_server,
)
from milan_pipeline.data.order import EpochOrder, OrderConfig, StepClock, lanes_of, usable_workers
from milan_pipeline.data.unreadable import RunLedger, WithReplacements
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.random_access import Place, SampleTable


class SampleSource(IterableDataset[dict[str, Any]]):
    """The source stage: emits this worker's samples of a range of steps, in order."""

    def __init__(
        self,
        table: SampleTable,
        order: OrderConfig,
        *,
        lanes: range,
        steps: range,
        cache: CacheConfig | None = None,
    ) -> None:
        self._table = table
        self._order = order
        self._lanes = lanes
        self._steps = steps
        self._cache = cache

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        lanes = self._lanes if info is None else lanes_of(info.id, info.num_workers, self._lanes)
        with contextlib.closing(self._table.read(self._places(lanes), self._cache)) as read:
            yield from read

    def _places(self, lanes: range) -> Iterator[Place]:
        """Yield the places of this worker's samples, step by step and lane by lane."""
        clock = step_clock(self._table, self._order)
        current: tuple[int, EpochOrder] | None = None
        for step in self._steps:
            epoch, within = clock.locate(step)
            view = epoch % self._table.cycle
            if current is None or current[0] != epoch:
                current = (epoch, EpochOrder(self._table.counts(view), self._order, epoch))
            for lane in lanes:
                for shard, row in current[1].lane_step(lane, within).tolist():
                    yield Place(epoch, view, shard, row)


def step_clock(table: SampleTable, order: OrderConfig) -> StepClock:
    """Return how many steps each view's epochs have."""
    views = range(table.cycle)
    return StepClock(tuple(EpochOrder(table.counts(view), order, 0).steps for view in views))


def _with_new_rows(
    replacing: WithReplacements[BatchT] | None, batches: Iterator[BatchT]
) -> Iterator[Part]:
    """Send, with each batch, the rows of the images that could not be decoded for it."""
    for batch in batches:
        yield Part(batch, [] if replacing is None else replacing.new_rows())


def batches(
    table: SampleTable,
    order: OrderConfig,
    to_examples: Callable[[Iterable[dict[str, Any]]], Iterator[BatchT]],
    *,
    steps: range,
    workers: int,
    world: World | None = None,
    pin_memory: bool = False,
    cache: CacheConfig | None = None,
    ledger: RunLedger | None = None,
) -> Generator[BatchT, None, None]:
    """Yield this rank's part of each global batch of a range of steps.

    Args:
        table: the samples.
        order: seed and sizes of the order.
        to_examples: turns samples into examples without a batch dimension, on the worker.
        steps: the steps of the run, counted over epochs.
        workers: loader processes at most; fewer where they cannot share the lanes equally.
        world: the processes that share the lanes.
        pin_memory: join batches in page-locked memory, for a GPU.
        cache: a local folder that keeps what is read from the shards.
        ledger: lists images that cannot be decoded, which are replaced (see `unreadable`); without
            a ledger such an image is an error.

    Raises:
        DataError: an image cannot be decoded, or more images than the ledger allows.
        StorageError: a loader process has no room for a batch.
    """
    world = world or World()
    lanes = lanes_of(world.rank, world.size, range(order.lanes))
    workers = usable_workers(workers, len(lanes))
    parts = max(1, workers)
    source = SampleSource(table, order, lanes=lanes, steps=steps, cache=cache)
    replacing = None
    if ledger is not None:
        replacing = WithReplacements(
            to_examples, table, seed=order.seed, cache=cache, budget=ledger.budget()
        )
    pipeline = wds.DataPipeline(
        source,
        replacing or to_examples,
        wds.batched(len(lanes) // parts * order.per_lane, collation_fn=stack, partial=False),
        functools.partial(_with_new_rows, replacing),
        carry_errors,
    )
    loader = wds.WebLoader(
        pipeline,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=leave_stop_to_parent,
    )
    # Closed at once, since workers that wait for the garbage collector outlive an error.
    with contextlib.closing(iter(loader)) as results:

        def joined(_: int) -> BatchT:
            received = [next_part(results) for _ in range(parts)]
            if ledger is not None:
                ledger.add(row for part in received for row in part.unreadable)
            batch: BatchT = join([part.batch for part in received], pinned=pin_memory)
            return batch

        def first(step: int) -> BatchT:
            with explained_start():
                if workers:
                    start_fork_server()
                return joined(step)

        # The first batch is fetched here, since that starts the workers: torch notices their death
        # at once only if the main thread started them. A thread fetches the next batches.
        yield from map(first, steps[:1])
        threads = min(1, workers)
        with contextlib.closing(ordered_map(joined, steps[1:], workers=threads, ahead=2)) as later:
            yield from later
