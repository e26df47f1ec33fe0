"""Map in threads with a bounded look-ahead, keeping the order."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def _one(_: object) -> float:
    return 1


def ordered_map(
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    *,
    workers: int,
    ahead: float,
    cost: Callable[[ItemT], float] = _one,
) -> Generator[ResultT, None, None]:
    """Yield `function(item)` for each item in order, computing at most `ahead` items in advance.

    Args:
        function: what runs in the threads; its exceptions are raised here, in order.
        items: consumed lazily, in the calling thread.
        workers: threads; 0 calls the function in place.
        ahead: how many results may wait, which bounds the memory they take.
        cost: how many items an item counts for.

    Closing the generator drops what no thread has begun, and waits for the rest.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pending: deque[tuple[Future[ResultT], float]] = deque()
    waiting = 0.0
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append((pool.submit(function, item), cost(item)))
            waiting += pending[-1][1]
            while pending and waiting >= ahead:
                future, counted = pending.popleft()
                waiting -= counted
                yield future.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_ahead(
    items: Generator[ItemT, None, None], *, ahead: int, workers: int = 1
) -> Generator[ItemT, None, None]:
    """Have a thread run a generator, at most `ahead` items in advance.

    Args:
        items: yields anything but None; its exceptions are raised here. It is closed in the end.
        ahead: how many items may wait.
        workers: 1, or 0 to run it in place.
    """
    with contextlib.closing(items):
        ahead_of_us = ordered_map(
            lambda _: next(items, None), itertools.count(), workers=workers, ahead=ahead
        )
        with contextlib.closing(ahead_of_us):
            for item in ahead_of_us:
                if item is None:
                    return
                yield item
