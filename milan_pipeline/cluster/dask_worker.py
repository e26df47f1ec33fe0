"""What a Dask worker does: it begins work once, then does item after item until the run has ended.

Dask tries an item again after an error is raised here, so errors that would recur are returned.
"""

import logging
import signal
import threading
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Worker, get_worker

from milan_pipeline.cluster.work import ItemT, ResultT, Work, WorkSpec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.out_of_memory import explained, is_out_of_memory
from milan_pipeline.errors import MilanError, MissingDataError, StorageError

ENDED = "the end of the run"


class UnfitWorkerError(MissingDataError):
    """A worker lacks what every item needs, and others most likely do, too."""


def dask_setup(_: Worker) -> None:
    """Ignore Ctrl-C, which a terminal sends to every process: the client handles it.

    Dask calls this in each of its workers before they begin.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker").addFilter(is_worth_a_line)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Leave out the traceback of a heartbeat that found no scheduler: its worker ends then.

    This is how every run may end, for workers that are still at work when the scheduler stops.
    """
    return "during heartbeat" not in record.getMessage()


def do_item(
    run: str, spec: WorkSpec[ItemT, ResultT], item: ItemT, *, share_machine: bool
) -> ResultT | MilanError:
    """Do an item on this worker; return its result, or an error that would recur.

    Args:
        run: tells the client's run from others.
        spec: what is to be done.
        item: which one.
        share_machine: whether this worker is one of a local cluster, which share its GPUs.

    Raises:
        StorageError: a store failed for long; Dask is to try again.
    """
    worker = get_worker()
    try:
        stop = _stop_of(run, worker)
        stop.raise_if_asked("finished units are kept")
        return _work(spec, worker, share_machine=share_machine).do(item, stop)
    except StorageError:
        raise
    except MilanError as error:
        return error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return explained(error, getattr(spec, "job", spec))


def end_run(run: str, state: str, dask_worker: Worker) -> None:
    """Have a worker stop what it does for a run, and end its work in the run's final state."""
    _stop_of(run, dask_worker).signal_name = ENDED
    _, work = _BEGUN.get(dask_worker, (None, None))
    if work is not None:
        work.end(state)


# By worker and not by process: workers of tests are threads of one.
_BEGUN: "WeakKeyDictionary[Worker, tuple[WorkSpec[Any, Any], Work[Any, Any]]]"
_BEGUN = WeakKeyDictionary()
_STOPS: "WeakKeyDictionary[Worker, dict[str, StopRequest]]" = WeakKeyDictionary()
_BEGINNING = threading.Lock()


def _stop_of(run: str, worker: Worker) -> StopRequest:
    return _STOPS.setdefault(worker, {}).setdefault(run, StopRequest())


def _work(
    spec: WorkSpec[ItemT, ResultT], worker: Worker, *, share_machine: bool
) -> Work[ItemT, ResultT]:
    """Return the work of a spec; begin it if the worker's last work was another.

    Raises:
        StorageError: a store failed for long, which may be temporary.
        UnfitWorkerError: it cannot be begun here.
    """
    with _BEGINNING:
        begun_for, work = _BEGUN.get(worker, (None, None))
        if work is None or begun_for != spec:
            # What was begun before is let go first: a GPU may have no room for two teachers.
            work = None
            _BEGUN.pop(worker, None)
            # A local cluster names its workers 0, 1, 2, …, and keeps the name on a restart.
            number = int(str(worker.name)) if share_machine else None
            try:
                work = spec.begin(number)
            except StorageError:
                raise
            except MilanError as error:
                raise UnfitWorkerError(
                    f"worker {worker.address} cannot take part ({error}); every worker must reach "
                    "the images, the store and the teacher under the names that the client was "
                    "given: use URLs or shared folders, and the same versions of packages"
                ) from error
            _BEGUN[worker] = spec, work
        return work
