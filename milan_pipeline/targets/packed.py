"""Which finished units have a target shard that is listed, is there, and is of the unit as it is.

The rows of a manifest are compared as they are read: those of 400,000 shards take a gigabyte.

Legend: f finished units.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.schema import conforming
from milan_pipeline.provenance.identity import Identity, content_hash, stated_identity
from milan_pipeline.shards.columns import TargetRow
from milan_pipeline.shards.listing import Rows
from milan_pipeline.shards.manifest import MANIFEST_NAME, read_manifest
from milan_pipeline.shards.writer import ListedFiles
from milan_pipeline.targets.marks.columns import NO_ROW, BriefMark
from milan_pipeline.targets.unit_list import FinishedUnits
from milan_pipeline.targets.units import Unit, shard_details, target_shard_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardsThere:
    """What lies in a folder of target shards.

    Attributes:
        identity: that of the shards, as the manifest states it.
        common: what the manifest says of all of them.
        is_current_f: which units (f,) have such a shard.
    """

    identity: Identity
    common: Mapping[str, Any]
    is_current_f: NDArray[np.bool_]

    def packed(self, identity: Identity) -> NDArray[np.bool_]:
        """Tell which units (f,) need not be packed: none if the shards are of other targets.

        Args:
            identity: that of the shards as they are to be.
        """
        return self.is_current_f & (identity == self.identity)


def read_shards_there(folder: str, units: FinishedUnits) -> ShardsThere | None:
    """Read the manifest of a folder of shards, once; None if there is none.

    Args:
        folder: of the shards.
        units: finished units of a store.

    Raises:
        DataError: the manifest is damaged.
        MismatchError: the folder holds shards of another kind.
    """
    if not storage.exists(storage.join(folder, MANIFEST_NAME)):
        return None
    files = ListedFiles(folder)
    # The hash that shards must have comes last, in the manifest's head: each one's is noted.
    hashes: dict[str | None, int] = {}
    hash_f = np.full(len(units), NO_ROW)

    def is_current(row: Mapping[str, Any], unit: Unit, mark: BriefMark) -> bool:
        details = row["details"]
        if details != shard_details(unit, mark, details.get("identity_hash")):
            return False
        return row["name"] == target_shard_name(unit) and files.has(row["name"], row["bytes"])

    def take(rows: Rows) -> None:
        conforming(rows, list[TargetRow])
        for view, of_view in itertools.groupby(rows, key=lambda row: row["details"]["view"]):
            listed = list(of_view)
            numbers = units.numbers_of(view, [row["details"]["source"] for row in listed])
            for row, number in zip(listed, numbers.tolist(), strict=True):
                if number == NO_ROW:
                    continue
                own = hashes.setdefault(row["details"].get("identity_hash"), len(hashes))
                hash_f[number] = own if is_current(row, *units[number]) else NO_ROW

    common = read_manifest(folder, take, kind="targets", allow_unfinished=True).common
    identity = stated_identity(common, what=folder)
    wanted = hashes.get(content_hash(identity))
    is_current_f = np.zeros(len(units), np.bool_) if wanted is None else hash_f == wanted
    return ShardsThere(identity=identity, common=common, is_current_f=is_current_f)
