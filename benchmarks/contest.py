"""Contestants take turns, each in its own process, so that noise affects all of them equally."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

PEAK, STOP = "peak", "stop"
KIB_PER_MB = 1024


class Contestant:
    """A process that does one thing at a time, when asked, and says how long it took.

    Use it as a context; when the block begins, it has done its first steps.
    """

    def __init__(self, name: str, serve: Callable[..., None], **options: Any) -> None:
        """Start the process.

        Args:
            name: for the table.
            serve: a function at the top of a module; it is given its end of the connection and
                the options, and does what `turns` yields.
            options: of `serve`; they travel to another process.
        """
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), kwargs=options, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        self._connection.recv()
        return self

    def seconds(self, what: str) -> float:
        """Send a request; return how long it took."""
        self._connection.send(what)
        return float(self._connection.recv())

    def peak_mb(self) -> float:
        """Return the most memory that the process has had, in MB of 2^20 bytes."""
        return self.seconds(PEAK)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self._connection.send(STOP)
            self._process.join()
        else:
            self._process.kill()


def turns(
    connection: "Connection[Any, Any]", clock: Callable[[], float] = time.perf_counter
) -> Iterator[str]:
    """Yield each request, and measure the time until the next; for the contestant's process.

    Args:
        connection: to the process that asks.
        clock: `time.process_time` counts the CPU seconds of all threads instead.
    """
    connection.send("ready")
    for what in iter(connection.recv, STOP):
        if what == PEAK:
            connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MB)
            continue
        start = clock()
        yield what
        connection.send(clock() - start)


def median_ratio(over: list[float], under: list[float]) -> float:
    """Return the median of the ratios of figures taken in the same rounds."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
