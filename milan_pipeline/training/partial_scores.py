"""What an evaluation had counted when it was stopped: it goes on from there."""

import dataclasses
import json
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from milan_pipeline import storage
from milan_pipeline.cluster.world import World
from milan_pipeline.core.schema import Count, DocumentError, parsed
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.images.budget import LedgerRow

NAME = "evaluation-part.json"


class _Stored(TypedDict):
    step: Count
    val: str
    done: list[Count]
    sums: list[float]
    unreadable: list[LedgerRow]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartialScores:
    """The part of one evaluation that was done; every process makes the same calls.

    Attributes:
        folder: the run folder, into which the first process writes.
        step: that is scored.
        val: fingerprint of the images that are scored.
        world: the processes, among which images are shared: another number of them begins anew.
    """

    folder: Path
    step: int
    val: str
    world: World

    def begin(self, sums: Tensor, ledger: RunLedger) -> int:
        """Take up what was done.

        Args:
            sums: float64 counts, all 0; those of all processes are added to the first one's.
            ledger: is given the unreadable images that were found.

        Returns:
            How many images of this process's share are done.
        """
        stored: _Stored | None = self.world.gather(self._read() if self.world.leads else None)[0]
        if stored is None or len(stored["sums"]) != sums.numel():
            return 0
        ledger.add(stored["unreadable"])
        if self.world.leads:
            sums += torch.tensor(stored["sums"], dtype=sums.dtype).view_as(sums)
        return stored["done"][self.world.rank]

    def keep(self, done: int, sums: Tensor, ledger: RunLedger) -> None:
        """Write what is done; see `begin`."""
        ledger.share(self.world)
        every, whole = self.world.gather(done), self.world.total(sums.clone())
        if self.world.leads:
            stored = _Stored(
                step=self.step,
                val=self.val,
                done=every,
                sums=whole.flatten().tolist(),
                unreadable=ledger.rows(),
            )
            storage.put_bytes(str(self.folder / NAME), (json.dumps(stored) + "\n").encode())

    def remove(self) -> None:
        """Forget what was done, once the scores are written."""
        (self.folder / NAME).unlink(missing_ok=True)

    def _read(self) -> _Stored | None:
        """Return what is stored of this evaluation; None of another one, or of a damaged file."""
        try:
            stored = parsed((self.folder / NAME).read_bytes(), _Stored)
        except (OSError, DocumentError):
            return None
        same = (stored["step"], stored["val"]) == (self.step, self.val)
        return stored if same and len(stored["done"]) == self.world.size else None
