"""What stands in for an image that cannot be decoded: another one of the same table.

Which one is drawn by (seed, epoch, key) alone, and does not depend on lanes, ranks, workers or the
step that a run begins at; so the global batches do not either, and none is ever short. A batch
would be the poorer with the next sample of its own lane: that is in it already.
"""

import contextlib
import itertools
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic

import numpy as np

from milan_pipeline.batching import BatchT
from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.keyed_random import keyed_generator
from milan_pipeline.ledger import BadImageBudget, LedgerRow
from milan_pipeline.sample_table import Place, SampleTable
from milan_pipeline.shard_cache import CacheConfig


class WithSpares(Generic[BatchT]):
    """Turn samples into examples, spares in place of what cannot be decoded.

    A stage of a pipeline, one in each loader process.

    Args:
        to_examples: the stage that does so with samples that can; gives one example a sample.
        table: where spares come from.
        seed: of the draws.
        cache: see `SampleTable.read`.
        budget: how many unreadable images are put up with.
    """

    def __init__(
        self,
        to_examples: Callable[[Iterable[dict[str, Any]]], Iterator[BatchT]],
        table: SampleTable,
        *,
        seed: int,
        cache: CacheConfig | None,
        budget: BadImageBudget,
    ) -> None:
        self._to_examples = to_examples
        self._table = table
        self._seed = seed
        self._cache = cache
        self._budget = budget
        self._untold: list[LedgerRow] = []

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[BatchT]:
        """Yield examples without a batch dimension, one for each sample, in order.

        Raises:
            DataError: more images are unreadable than the budget allows, or all are.
        """
        return map(self._example, samples)

    def untold(self) -> list[LedgerRow]:
        """Return the unreadable images that were found since the last call, each once."""
        rows, self._untold = self._untold, []
        return rows

    def _example(self, sample: dict[str, Any]) -> BatchT:
        for candidate in itertools.chain([sample], self._spares(sample)):
            try:
                (example,) = self._to_examples([candidate])
            except BadImageError as error:
                self._note(ledger_row(candidate, error))
            else:
                return example
        raise DataError("not one of the images can be decoded; give others")

    def _spares(self, sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for place in spare_places(self._table, sample["epoch"], sample["__key__"], self._seed):
            with contextlib.closing(self._table.read(iter([place]), self._cache)) as found:
                yield next(found)

    def _note(self, row: LedgerRow) -> None:
        known = len(self._budget.ledger)
        self._budget.add(row["shard"], [row])
        if len(self._budget.ledger) > known:
            self._untold.append(row)


def spare_places(table: SampleTable, epoch: int, key: str, seed: int) -> Iterator[Place]:
    """Yield every place of a table once: from one that is drawn for a sample, on and around."""
    view = epoch % table.cycle
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(table.counts(view))])
    total = int(bounds[-1])
    first = int(keyed_generator("spare", seed, epoch, key).random() * total)
    for number in itertools.chain(range(first, total), range(first)):
        shard = int(np.searchsorted(bounds, number, side="right")) - 1
        yield Place(epoch, view, shard, number - int(bounds[shard]))


def ledger_row(sample: dict[str, Any], error: BadImageError) -> LedgerRow:
    """Say which sample cannot be decoded, and why; shards are named without their folder."""
    shard = posixpath.basename(sample["__url__"].rstrip("/"))
    return {"shard": shard, "key": sample["__key__"], "reason": str(error)}
