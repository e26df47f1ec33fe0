"""Map in threads with a bounded look-ahead, keeping the order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def ordered_map(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, workers: int, ahead: int
) -> Generator[ResultT, None, None]:
    """Yield `function(item)` for each item in order, computing at most `ahead` items in advance.

    Args:
        function: what runs in the threads; its exceptions are raised here, in order.
        items: consumed lazily, in the calling thread.
        workers: threads; 0 calls the function in place.
        ahead: how many results may wait, which bounds the memory they take.

    Closing the generator drops what no thread has begun, and waits for the rest.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pending: deque[Future[ResultT]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
