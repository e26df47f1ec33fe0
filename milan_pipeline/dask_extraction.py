"""Extraction on a Dask cluster: a unit that fails does not stop the others, unless many do."""

import contextlib
from collections.abc import Generator, Sequence
from typing import NamedTuple

from distributed import Client

from milan_pipeline.dask_map import Ended, map_on_workers
from milan_pipeline.errors import DataError, MilanError
from milan_pipeline.extraction_work import ExtractionSpec
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.units import Mark, Unit

FAILURES_IN_A_ROW = 20
"""So many units that fail with no success in between are no accident of theirs."""

NAMED_FAILURES = 10


class Outcome(NamedTuple):
    """A unit, and its mark without objects; None where it failed."""

    unit: Unit
    mark: Mark | None


def extract_on_workers(
    client: Client,
    spec: ExtractionSpec,
    units: Sequence[Unit],
    stop: StopRequest,
    *,
    share_machine: bool,
) -> Generator[Outcome, None, None]:
    """Have workers extract units, yielding what became of each as it is known, in any order.

    Args:
        client: of the cluster.
        spec: the extraction.
        units: which ones.
        stop: asked every moment.
        share_machine: whether the workers are those of a local cluster.

    Raises:
        DataError: one unit after the other fails, or some have, once the others are done.
        InterruptedRunError: a stop signal came; finished units are kept, others may yet be.
        MissingDataError: a worker lacks what every worker needs.
    """
    failed: list[Ended[Unit, Mark]] = []
    in_a_row: list[Ended[Unit, Mark]] = []
    everything = map_on_workers(client, spec, units, stop, share_machine=share_machine)
    with contextlib.closing(everything):
        for ended in everything:
            if ended.error is None:
                in_a_row = []
            else:
                failed.append(ended)
                in_a_row.append(ended)
            yield Outcome(ended.item, ended.result)
            if len(in_a_row) >= FAILURES_IN_A_ROW:
                raise DataError(_listing(in_a_row, len(units)))
    if failed:
        raise DataError(_listing(failed, len(units)))


def _listing(failed: Sequence[Ended[Unit, Mark]], units: int) -> str:
    named = ", ".join(f"{one.item.path} ({_reason(one.error)})" for one in failed[:NAMED_FAILURES])
    return (
        f"{len(failed)} of {units} units failed: {named}; mend what they name and run the same "
        "command again"
    )


def _reason(error: Exception | None) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, MilanError) else f"{type(error).__name__}: {text}"
