"""Checks labelled samples before a run is trained on them: all, or some that are drawn."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from milan_pipeline.cluster.world import World
from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import RunLedger

SAMPLED = 1000
"""Images of a set that are looked at where not all are."""

ResultT = TypeVar("ResultT")


def looked_at(
    table: LabelledTable,
    look: Callable[[dict[str, Any]], ResultT],
    *,
    ledger: RunLedger,
    world: World,
    threads: int,
    sampled: bool = False,
    title: str = "check",
) -> Iterator[ResultT]:
    """Yield what `look` finds in this process's share of the samples that can be decoded.

    Args:
        table: of labelled samples.
        look: called with each sample, in threads.
        ledger: counts the images that cannot be decoded; it is not written.
        world: the processes that share the samples.
        threads: number of threads.
        sampled: look at `SAMPLED` samples alone, which are the same in each run.
        title: beside the progress bar.

    Raises:
        DataError: more images than the ledger allows cannot be decoded.
    """
    chosen = chosen_rows(table, sampled=sampled)
    places = (place for at, place in enumerate(table.places()) if at in chosen)
    samples = table.read(itertools.islice(places, world.rank, None, world.size))
    found = ordered_map(ledger.noting(look), samples, workers=threads, ahead=4 * threads)
    bar = progress_bar(title, total=len(chosen), shown=world.leads)
    with contextlib.closing(samples), contextlib.closing(found), bar:
        for each in found:
            bar.update(world.size)
            if each is not None:
                yield each
    ledger.share(world)


def chosen_rows(table: LabelledTable, *, sampled: bool) -> range | frozenset[int]:
    """Return the numbers of the samples to look at."""
    if not sampled or table.samples <= SAMPLED:
        return range(table.samples)
    order = keyed_generator("survey", table.source).permutation(table.samples)
    return frozenset(order[:SAMPLED].tolist())
