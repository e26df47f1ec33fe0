"""Totals of the shards that a manifest lists, of which there may be millions: none is kept."""

import dataclasses
from collections.abc import Callable
from typing import Any

from milan_pipeline.core.schema import conforming
from milan_pipeline.shards.columns import ShardRow, TargetRow
from milan_pipeline.shards.manifest import Manifest, read_manifest


@dataclasses.dataclass(kw_only=True)
class ShardTotals:
    """How many shards there are, and what is in them.

    Attributes:
        shards: number of shards.
        samples: number of samples in all of them.
        bytes: of all tars.
        fewest: samples of the shard with the fewest; 0 if there is none.
        most: samples of the shard with the most.
        largest: bytes of the largest tar.
    """

    shards: int = 0
    samples: int = 0
    bytes: int = 0
    fewest: int = 0
    most: int = 0
    largest: int = 0

    def add(self, shard: ShardRow) -> None:
        """Count one more shard."""
        self.fewest = min(self.fewest, shard.samples) if self.shards else shard.samples
        self.most, self.largest = max(self.most, shard.samples), max(self.largest, shard.bytes)
        self.shards += 1
        self.samples += shard.samples
        self.bytes += shard.bytes


def read_totals(
    url: str, *, kind: str, also: Callable[[TargetRow], None] | None = None
) -> tuple[Manifest, ShardTotals]:
    """Read a manifest, which may be unfinished; return it without its shards, and their totals.

    Args:
        url: the folder of the shards.
        kind: what they must be: "images" or "targets".
        also: is given each target shard; only for targets.

    Raises:
        MissingDataError, DataError, MismatchError: as `load_manifest` does.
    """
    totals = ShardTotals()

    def take(rows: list[Any]) -> None:
        if kind == "targets":
            for target in conforming(rows, list[TargetRow]):
                totals.add(target)
                if also is not None:
                    also(target)
        else:
            for shard in conforming(rows, list[ShardRow]):
                totals.add(shard)

    return read_manifest(url, take, kind=kind, allow_unfinished=True), totals
