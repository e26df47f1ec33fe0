"""Do units in threads of this process or, where a scheduler or processes are named, on Dask."""

import contextlib
from collections.abc import Generator, Sequence

from milan_pipeline.cluster.work import ItemT, ResultT, WorkSpec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.threads import ordered_map


def spread(
    spec: WorkSpec[ItemT, ResultT],
    items: Sequence[ItemT],
    stop: StopRequest,
    *,
    threads: int,
    scheduler: str | None = None,
    processes: int | None = None,
) -> Generator[tuple[ItemT, ResultT], None, None]:
    """Yield each item with its result: in order from threads, as they come from Dask workers.

    Args:
        spec: what is to be done.
        items: each a unit.
        stop: passed on to the work; on Dask, also checked twice a second.
        threads: here; 0 does the units in place.
        scheduler: address of a Dask scheduler whose workers do the units.
        processes: Dask workers that are started here to do them; None for both is threads.

    Raises:
        MissingDataError: the cluster cannot be reached or is gone, or a worker lacks something.
        MilanError: what the work raises; the first to fail ends it.
    """
    if not items:
        return
    if scheduler is None and processes is None:
        work = spec.begin(None)
        done = ordered_map(
            lambda item: (item, work.do(item, stop)), items, workers=threads, ahead=2 * threads
        )
        with contextlib.closing(done):
            yield from done
        return
    from milan_pipeline.cluster.dask_client import connected, map_on_workers

    with (
        connected(scheduler=scheduler, processes=processes) as client,
        contextlib.closing(
            map_on_workers(client, spec, items, stop, share_machine=processes is not None)
        ) as everything,
    ):
        for ended in everything:
            yield ended.item, ended.get()
