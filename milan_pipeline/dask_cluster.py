"""A Dask cluster: one that is there, by its scheduler's address, or one of this machine's own."""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator

import dask
from distributed import Client, LocalCluster
from distributed.comm.addressing import parse_address, parse_host_port

from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.messages import note

CONNECT_SECONDS = 30

UNWATCHED = {"distributed.worker.profile.enabled": False}
"""Dask looks at its threads' frames 100 times a second, by a call that hung Python 3.11.7 where it
met the start of a thread (github.com/python/cpython/issues/106883)."""


def require_address(scheduler: str) -> None:
    """Refuse what is no address, before any work is done.

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
        MissingDataError: nobody answers at the scheduler's address.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        if scheduler is None:
            scheduler = stack.enter_context(_local_cluster(processes or 1))
        try:
            client = stack.enter_context(Client(scheduler, timeout=CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise MissingDataError(
                f"--scheduler {scheduler} does not answer ({error}); start one with `dask "
                "scheduler`, and its workers with `dask worker`, or correct the address"
            ) from error
        _tell(client)
        yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have Dask speak of errors alone, and not look into threads, here and in its processes."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with dask.config.set({"logging.distributed": "error", **UNWATCHED}):
            yield
    finally:
        logger.setLevel(level)


def _local_cluster(processes: int) -> LocalCluster:
    # Dask would give each process one thread. Whoever set these in the environment is heeded.
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    share = {f"distributed.nanny.pre-spawn-environ.{name}": threads for name in names}
    with dask.config.set(share):
        return LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            processes=True,
            preload="milan_pipeline.dask_worker",
            # A worker that is killed for its memory loses a unit; ours do not grow.
            memory_limit=0,
            # Nobody from outside, and whichever port is free.
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        )


def _tell(client: Client) -> None:
    note(f"Dask: {len(client.ncores())} workers; dashboard: {client.dashboard_link}")
    if importlib.util.find_spec("bokeh") is None:
        note("The dashboard needs bokeh: pip install 'milan-pipeline[dashboard]'")
