"""Connect to a Dask cluster, or start one on this machine, and have its workers do work.

Each item is a task, and few are handed out at a time. Workers read and write the stores, so little
is sent. The client knows nothing that the stores do not say, so it may be killed at any time, like
any other process.
"""

import contextlib
import functools
import importlib.util
import itertools
import logging
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Generic, NamedTuple, cast

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, wait
from distributed.comm.addressing import parse_address, parse_host_port

from milan_pipeline.cluster.dask_worker import UnfitWorkerError, do_item, end_run
from milan_pipeline.cluster.work import ItemT, ResultT, WorkSpec
from milan_pipeline.core.console import NOTE
from milan_pipeline.core.cores import own_cores, threads_in_use
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import ConfigError, MilanError, MissingDataError

logger = logging.getLogger(__name__)

NO_PROFILER = {"distributed.worker.profile.enabled": False}
"""Dask's profiler reads the frames of all threads 100 times a second. That call hung Python 3.11.7
when a thread started meanwhile (github.com/python/cpython/issues/106883)."""


def require_address(scheduler: str) -> None:
    """Refuse a malformed address, before any work is done.

    Raises:
        ConfigError: it is none.
    """
    try:
        scheme, place = parse_address(scheduler)
        if scheme != "inproc":  # a cluster of this very process, which has no ports
            parse_host_port(place)
    except ValueError as error:
        raise ConfigError(
            f"--scheduler {scheduler} is no address ({error}); give the one that `dask scheduler` "
            "prints, for example tcp://HOST:8786"
        ) from error


@contextlib.contextmanager
def connected(*, scheduler: str | None, processes: int | None) -> Iterator[Client]:
    """Connect to a scheduler, or start that many worker processes here and end them afterwards.

    Raises:
        MissingDataError: no scheduler answers at the address.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        if scheduler is None:
            scheduler = stack.enter_context(_local_cluster(processes or 1))
        try:
            client = stack.enter_context(Client(scheduler))
        except (OSError, ValueError) as error:
            raise MissingDataError(
                f"--scheduler {scheduler} does not answer ({error}); start one with `dask "
                "scheduler`, and its workers with `dask worker`, or correct the address"
            ) from error
        _log_cluster(client)
        yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have Dask log errors alone and run no profiler, here and in its processes."""
    dasks = logging.getLogger("distributed")
    level = dasks.level
    dasks.setLevel(logging.ERROR)
    try:
        with dask.config.set({"logging.distributed": "error", **NO_PROFILER}):
            yield
    finally:
        dasks.setLevel(level)


def _local_cluster(processes: int) -> LocalCluster:
    # Dask would give each process one thread. Each has as many as this one, which only waits.
    threads = str(threads_in_use() or own_cores(processes))
    return LocalCluster(
        n_workers=processes,
        threads_per_worker=1,
        processes=True,
        preload="milan_pipeline.cluster.dask_worker",
        env=dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads),
        # No limit: a worker that Dask killed for its memory would lose a unit.
        memory_limit=0,
        # Only this machine can connect, at any free port.
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.ERROR,
    )


def _log_cluster(client: Client) -> None:
    workers, link = len(client.ncores()), client.dashboard_link
    logger.log(NOTE, "Dask: %d workers; dashboard: %s", workers, link)
    if importlib.util.find_spec("bokeh") is None:
        logger.log(NOTE, "The dashboard needs bokeh: pip install 'milan-pipeline[dashboard]'")


ITEMS_AHEAD = 2
"""Tasks that the scheduler has for each worker thread: no thread waits, few must be cancelled."""
RETRIES = 2
"""Of an item that failed for a temporary reason. The death of a worker does not count here: the
scheduler has its own limit for it (`distributed.scheduler.allowed-failures`)."""
POLL_SECONDS = 0.5
KEPT = "finished units are kept"


class Ended(NamedTuple, Generic[ItemT, ResultT]):
    """An item with its result, or with the error that it ended in."""

    item: ItemT
    result: ResultT | None
    error: Exception | None

    def get(self) -> ResultT:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("ResultT", self.result)


def map_on_workers(
    client: Client,
    spec: WorkSpec[ItemT, ResultT],
    items: Sequence[ItemT],
    stop: StopRequest,
    *,
    share_machine: bool,
) -> Generator[Ended[ItemT, ResultT], None, None]:
    """Have workers do items, and yield the outcome of each as soon as it is known, in any order.

    Closing the generator cancels what has not begun; workers drop the rest when they can.

    Args:
        client: of the cluster, which may grow and shrink meanwhile.
        spec: what is to be done.
        items: each a task.
        stop: checked every `POLL_SECONDS`.
        share_machine: whether the workers are those of a local cluster.

    Raises:
        InterruptedRunError: a stop signal came.
        MissingDataError: a worker lacks what every item needs, or the scheduler is gone.
    """
    run, state = uuid.uuid4().hex, "interrupted"
    task = functools.partial(do_item, run, spec, share_machine=share_machine)
    waiting = iter(items)
    running: dict[Future[ResultT | MilanError], ItemT] = {}
    try:
        while True:
            stop.raise_if_asked(KEPT)
            room = ITEMS_AHEAD * max(1, sum(client.nthreads().values())) - len(running)
            for item in itertools.islice(waiting, max(0, room)):
                running[client.submit(task, item, retries=RETRIES, pure=False)] = item
            if not running:
                break
            for future in _finished(running):
                ended = _ended(future, running.pop(future))
                if ended.error is not None:  # local workers get the stop signal, too
                    stop.raise_if_asked(KEPT)
                yield ended
        state = "done"
    except CancelledError as error:
        raise MissingDataError(
            "the Dask scheduler is gone; finished units are kept, "
            "start it again and run the same command"
        ) from error
    finally:
        # The workers may be gone, too.
        with contextlib.suppress(OSError):
            client.cancel(list(running))
        with contextlib.suppress(Exception):
            client.run(end_run, run, state, on_error="ignore")


def _finished(
    running: dict[Future[ResultT | MilanError], ItemT],
) -> list[Future[ResultT | MilanError]]:
    """Wait for any item to end, but not for long: a stop signal must not wait for one."""
    with contextlib.suppress(TimeoutError):
        wait(list(running), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
    return [future for future in running if future.done()]


def _ended(future: Future[ResultT | MilanError], item: ItemT) -> Ended[ItemT, ResultT]:
    """Return the outcome of an item.

    Raises:
        MissingDataError: it failed for a reason that every other item would fail for.
    """
    error = future.exception()
    if isinstance(error, ImportError):
        raise MissingDataError(
            f"a worker lacks a package ({error}); install there what is installed here"
        ) from error
    if isinstance(error, KilledWorker):
        last = "" if error.last_worker is None else f", at last {error.last_worker.address}"
        error = MissingDataError(
            f"every worker that took this unit on died{last}; give workers more memory, or "
            "run the same command again where they were preempted"
        )
    if error is not None:
        return Ended(item, None, error)
    result = future.result()
    if isinstance(result, UnfitWorkerError):
        raise result
    if isinstance(result, MilanError):
        return Ended(item, None, result)
    return Ended(item, result, None)
