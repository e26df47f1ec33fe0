"""Images that cannot be decoded: what replaces them, and where a run lists them.

An image that cannot be decoded is replaced by another sample of the same table. The replacement is
drawn by (seed, epoch, key) alone. It does not depend on lanes, ranks, workers or the first step, so
the global batches do not depend on them either, and every batch is full. The next sample of the
same lane would not do as a replacement, since the batch has it already.

A run lists such images in `unreadable-train.json` and `unreadable-val.json` in its folder: sorted
rows of `{shard, key, reason}`, one an image. Where every image can be decoded there is no file. It
is written before each checkpoint, so that a run that is resumed from there has the whole list.
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
from milan_pipeline.data.batching import BatchT
from milan_pipeline.errors import BadImageError, DataError, MissingDataError
from milan_pipeline.images.budget import BadImageBudget, LedgerRow, ledger_row
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.random_access import Place, SampleTable

NONE_READABLE = "none of the images to score on can be decoded; give others"
ResultT = TypeVar("ResultT")


class WithReplacements(Generic[BatchT]):
    """Turn samples into examples, and replace samples that cannot be decoded.

    A stage of a pipeline, one in each loader process.

    Args:
        to_examples: turns samples that can be decoded into examples, one for each sample.
        table: the samples that replacements are drawn from.
        seed: of the draws.
        cache: see `SampleTable.read`.
        budget: how many unreadable images are allowed.
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
        self._new_rows: list[LedgerRow] = []

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[BatchT]:
        """Yield examples without a batch dimension, one for each sample, in order.

        Raises:
            DataError: more images are unreadable than the budget allows, or all are.
        """
        return map(self._example, samples)

    def new_rows(self) -> list[LedgerRow]:
        """Return the unreadable images that were found since the last call, each once."""
        rows, self._new_rows = self._new_rows, []
        return rows

    def _example(self, sample: dict[str, Any]) -> BatchT:
        for candidate in itertools.chain([sample], self._replacements(sample)):
            try:
                (example,) = self._to_examples([candidate])
            except BadImageError as error:
                self._note(ledger_row(candidate, error))
            else:
                return example
        raise DataError("none of the images can be decoded; give others")

    def _replacements(self, sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
        epoch, key = sample["epoch"], sample["__key__"]
        for place in replacement_places(self._table, epoch, key, self._seed):
            with contextlib.closing(self._table.read(iter([place]), self._cache)) as samples:
                yield next(samples)

    def _note(self, row: LedgerRow) -> None:
        known = len(self._budget.ledger)
        self._budget.add(row["shard"], [row])
        if len(self._budget.ledger) > known:
            self._new_rows.append(row)


def replacement_places(table: SampleTable, epoch: int, key: str, seed: int) -> Iterator[Place]:
    """Yield every place of a table once, in order from a drawn one, and around to the one before.

    The first place is a function of (seed, epoch, key).
    """
    view = epoch % table.cycle
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(table.counts(view))])
    total = int(bounds[-1])
    first = int(keyed_generator("spare", seed, epoch, key).random() * total)
    for number in itertools.chain(range(first, total), range(first)):
        shard = int(np.searchsorted(bounds, number, side="right")) - 1
        yield Place(epoch, view, shard, number - int(bounds[shard]))


class RunLedger:
    """The unreadable images among those that a run is trained or scored on.

    Any thread may add some.

    Args:
        folder: the run folder.
        what: "train" or "val".
        images: the number of all images.
        fraction: share of the images that may be unreadable; `--max-bad-fraction`.

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
        """Return how many unreadable images one loader process may meet."""
        return BadImageBudget(fraction=self._fraction, images=self._images)

    @property
    def count(self) -> int:
        """How many unreadable images this process knows of; after `settle`, it knows all."""
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
        self, decode: Callable[[dict[str, Any]], ResultT]
    ) -> Callable[[dict[str, Any]], ResultT | None]:
        """Return a function that calls `decode`; if that fails, it adds a row and returns None."""

        def decoded(sample: dict[str, Any]) -> ResultT | None:
            try:
                return decode(sample)
            except BadImageError as error:
                self.add([ledger_row(sample, error)])
                return None

        return decoded

    def begin_anew(self) -> None:
        """Forget all rows, before all images are looked at again: some may have been mended."""
        with self._lock:
            self._reasons.clear()
            self._budget = self.budget()

    def share(self, world: World) -> None:
        """Share the rows among all processes, which must all call this.

        Raises:
            DataError: there are too many, named.
        """
        self.add(row for part in world.gather(self.rows()) for row in part)

    def settle(self, world: World) -> None:
        """Share the rows among all processes, which must all call this; the first one writes them.

        Raises:
            DataError: there are too many, named.
        """
        self.share(world)
        if world.leads and (rows := self.rows()) != self._written:
            storage.put_bytes(str(self._path), (json.dumps(rows, indent=1) + "\n").encode())
            self._written = rows

    def rows(self) -> list[LedgerRow]:
        """Return the unreadable images that this process knows of, sorted."""
        with self._lock:
            reasons = sorted(self._reasons.items())
        return [{"shard": shard, "key": key, "reason": reason} for (shard, key), reason in reasons]


def unreadable_images(folder: Path, what: str) -> list[LedgerRow]:
    """Read which images a run could not decode.

    Args:
        folder: the run folder.
        what: "train" or "val".

    Raises:
        DataError: the file is damaged.
    """
    path = folder / f"unreadable-{what}.json"
    try:
        return parsed(storage.read_bytes(str(path)), list[LedgerRow])
    except MissingDataError:
        return []
    except DocumentError as error:
        raise DataError(f"{path} is damaged ({error}); remove it") from error


def readable(decoded: Iterable[ResultT | None]) -> Iterator[ResultT]:
    """Yield what could be decoded."""
    return (each for each in decoded if each is not None)
