"""Which finished units have a target shard that is listed, is there, and is of the unit as it is.

The rows of a manifest are compared as they are read: those of 400,000 shards take a gigabyte.

Legend: f finished units.
"""

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


def packed_units(folder: str, units: FinishedUnits, identity: Identity) -> NDArray[np.bool_]:
    """Tell which units need not be packed (f,): none if the folder has shards of other targets.

    Args:
        folder: of the shards.
        units: finished units of a store.
        identity: that of the shards as they are to be.

    Raises:
        DataError: the manifest is damaged.
        MismatchError: the folder holds shards of another kind.
    """
    is_packed_f = np.zeros(len(units), np.bool_)
    if not storage.exists(storage.join(folder, MANIFEST_NAME)):
        return is_packed_f
    known, files = content_hash(identity), ListedFiles(folder)

    def is_current(row: Mapping[str, Any], unit: Unit, mark: BriefMark) -> bool:
        if row["details"] != shard_details(unit, mark, known):
            return False
        return row["name"] == target_shard_name(unit) and files.has(row["name"], row["bytes"])

    def take(rows: Rows) -> None:
        conforming(rows, list[TargetRow])
        for view, of_view in itertools.groupby(rows, key=lambda row: row["details"]["view"]):
            listed = list(of_view)
            numbers = units.numbers_of(view, [row["details"]["source"] for row in listed])
            for row, number in zip(listed, numbers.tolist(), strict=True):
                if number != NO_ROW:
                    is_packed_f[number] = is_current(row, *units[number])

    head = read_manifest(folder, take, kind="targets", allow_unfinished=True)
    if stated_identity(head.common, what=folder) != identity:
        is_packed_f[:] = False
    return is_packed_f
