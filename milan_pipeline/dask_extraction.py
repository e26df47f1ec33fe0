"""Extraction on a Dask cluster: one task a unit, handed out few at a time.

Workers write the units and their marks; what travels back is small. The client knows nothing that
the store does not say, so it may be killed at any time, like any other process.
"""

import contextlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError

from distributed import Client, Future, KilledWorker, wait

from milan_pipeline.dask_station import Assignment, Outcome, do_unit, end_run
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.units import Unit

UNITS_AHEAD = 2
"""With the scheduler for each worker thread: enough that none waits, few to call back."""

RETRIES = 2
"""Of a unit that failed for a reason that may pass. A worker's death costs none of them."""

POLL_SECONDS = 0.5
FAILURES_IN_A_ROW = 20
"""So many units that fail with no success in between are no accident of theirs."""

NAMED_FAILURES = 10

UnitFuture = Future[Outcome]


def extract_on_workers(
    client: Client, assignment: Assignment, units: Sequence[Unit], stop: StopRequest
) -> Generator[Outcome, None, None]:
    """Have workers extract units, yielding what became of each as it is known, in any order.

    Raises:
        DataError: one unit after the other fails, or some have, once the others are done.
        InterruptedRunError: a stop signal came; finished units are kept, others may yet be.
        MissingDataError: a worker lacks what every worker needs.
    """
    failed: list[Outcome] = []
    state = "interrupted"
    try:
        for outcome in _outcomes(client, assignment, units, stop):
            if outcome.lasting:
                raise MissingDataError(outcome.reason)
            if outcome.mark is None:
                failed.append(outcome)
            yield outcome
        state = "done"
    finally:
        # The workers may be gone, with whatever made this end.
        with contextlib.suppress(Exception):
            client.run(end_run, assignment.run, state, on_error="ignore")
    if failed:
        raise DataError(_listing(failed, len(units)))


def _outcomes(
    client: Client, assignment: Assignment, units: Sequence[Unit], stop: StopRequest
) -> Iterator[Outcome]:
    waiting = iter(units)
    running: dict[UnitFuture, Unit] = {}
    in_a_row: list[Outcome] = []
    try:
        while True:
            stop.raise_if_asked("finished units are kept")
            room = UNITS_AHEAD * max(1, sum(client.nthreads().values())) - len(running)
            for unit in itertools.islice(waiting, max(0, room)):
                future = client.submit(do_unit, assignment, unit, retries=RETRIES, pure=False)
                running[future] = unit
            if not running:
                return
            for future in _finished(running):
                outcome = _outcome_of(future, running.pop(future))
                yield outcome
                in_a_row = [] if outcome.mark else [*in_a_row, outcome]
            if len(in_a_row) >= FAILURES_IN_A_ROW:
                raise DataError(_listing(in_a_row, len(units)))
    except CancelledError as error:
        raise MissingDataError(
            "the Dask scheduler is gone; finished units are kept, "
            "start it again and run the same command"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            client.cancel(list(running))


def _finished(running: dict[UnitFuture, Unit]) -> list[UnitFuture]:
    """Wait a moment for any unit to end: a stop signal must not wait for one."""
    with contextlib.suppress(TimeoutError):
        wait(list(running), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
    return [future for future in running if future.done()]


def _outcome_of(future: UnitFuture, unit: Unit) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, ImportError):
        reason = f"a worker lacks a package ({error}); install there what is installed here"
        return Outcome(unit, None, reason, lasting=True)
    if isinstance(error, KilledWorker):
        return Outcome(unit, None, "every worker that took it on died; too little memory?")
    return Outcome(unit, None, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _listing(failed: Sequence[Outcome], units: int) -> str:
    named = ", ".join(f"{one.unit.path} ({one.reason})" for one in failed[:NAMED_FAILURES])
    return (
        f"{len(failed)} of {units} units failed: {named}; mend what they name and run the same "
        "command again"
    )
