"""Which images a run could not decode: `unreadable-train.json` and `unreadable-val.json`.

A list of `{shard, key, reason}`, sorted, each image once, in the run folder; there is none where
every image could be decoded. It is written before each checkpoint, so that a run which goes on from
there has it whole.
"""

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from milan_pipeline import storage
from milan_pipeline.distributed import World
from milan_pipeline.documents import MISSHAPEN, parsed
from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.ledger import BadImageBudget, LedgerRow
from milan_pipeline.spares import ledger_row

ResultT = TypeVar("ResultT")


class _Row(TypedDict):
    shard: str
    key: str
    reason: str


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
        rows = parsed(path.read_bytes(), list[_Row]) if path.exists() else []
    except MISSHAPEN as error:
        raise DataError(f"{path} is damaged ({error}); remove it") from error
    return [{"shard": row["shard"], "key": row["key"], "reason": row["reason"]} for row in rows]
