"""What stands in for an image that cannot be decoded: another one of the same table.

Which one is drawn by (seed, epoch, key) alone, and does not depend on lanes, ranks, workers or the
step that a run begins at; so the global batches do not either, and none is ever short. A batch
would be the poorer with the next sample of its own lane: that is in it already.

Which images a run could not decode: `unreadable-train.json` and `unreadable-val.json`.

A list of `{shard, key, reason}`, sorted, each image once, in the run folder; there is none where
every image could be decoded. It is written before each checkpoint, so that a run which goes on from
there has it whole.
"""

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from milan_pipeline import storage
from milan_pipeline.cluster.world import World
from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.data.loader import BatchT
from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.images.budget import BadImageBudget, LedgerRow, ledger_row
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.random_access import Place, SampleTable

NONE_READABLE = "not one of the images to score on can be decoded; give others"
ResultT = TypeVar("ResultT")


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


class RunLedger:
    """The unreadable images of what a run learns from or is scored on; any thread may add some.

    Args:
        folder: of the run.
        what: "train" or "val".
        images: how many there are.
        fraction: of them that may be unreadable; `--max-bad-fraction`.

    Raises:
        DataError: an earlier part of the run found too many, or its file is damaged.
    """

    def __init__(self, folder: Path, what: str, *, images: int, fraction: float) -> None:
        self._path = folder / f"unreadable-{what}.json"
        self._images = images
        self._fraction = fraction
        self._budget = self.budget()
        self._reasons: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._written = unreadable_images(folder, what)
        self.add(self._written)

    def budget(self) -> BadImageBudget:
        """Return what a loader process may put up with by itself."""
        return BadImageBudget(fraction=self._fraction, images=self._images)

    @property
    def count(self) -> int:
        """How many unreadable images this process knows of; after `settle`, all do of all."""
        return len(self._reasons)

    def add(self, rows: Iterable[LedgerRow]) -> None:
        """Add images, known or not.

        Raises:
            DataError: there are too many, named.
        """
        with self._lock:
            for row in rows:
                self._reasons[row["shard"], row["key"]] = row["reason"]
                self._budget.note(row["shard"], [row])
            self._budget.require_within()

    def noting(
        self, show: Callable[[dict[str, Any]], ResultT]
    ) -> Callable[[dict[str, Any]], ResultT | None]:
        """Return a function that does what `show` does, or adds what it cannot and returns None."""

        def shown(sample: dict[str, Any]) -> ResultT | None:
            try:
                return show(sample)
            except BadImageError as error:
                self.add([ledger_row(sample, error)])
                return None

        return shown

    def settle(self, world: World) -> None:
        """Let all processes know of all images; the first writes them. Every one must come here.

        Raises:
            DataError: there are too many, named.
        """
        self.add(row for part in world.gather(self._rows()) for row in part)
        if world.leads and (rows := self._rows()) != self._written:
            storage.put_bytes(str(self._path), (json.dumps(rows, indent=1) + "\n").encode())
            self._written = rows

    def _rows(self) -> list[LedgerRow]:
        with self._lock:
            reasons = sorted(self._reasons.items())
        return [{"shard": shard, "key": key, "reason": reason} for (shard, key), reason in reasons]


def unreadable_images(folder: Path, what: str) -> list[LedgerRow]:
    """Read which images a run could not decode.

    Args:
        folder: of the run.
        what: "train" or "val".

    Raises:
        DataError: the file is damaged.
    """
    path = folder / f"unreadable-{what}.json"
    try:
        return parsed(path.read_bytes(), list[LedgerRow]) if path.exists() else []
    except DocumentError as error:
        raise DataError(f"{path} is damaged ({error}); remove it") from error


def readable(shown: Iterable[ResultT | None]) -> Iterator[ResultT]:
    """Yield what could be decoded."""
    return (each for each in shown if each is not None)
