"""The targets that others were made of by another codec, where a store still has them.

Legend: n samples, N = 1 + L tokens (CLS first), D target width.
"""

from collections import defaultdict

import numpy as np
import torch

from milan_pipeline.codec_files import read_store_codec
from milan_pipeline.errors import MismatchError
from milan_pipeline.identity import TRANSCODED_FROM, require_same, without
from milan_pipeline.report.target_rows import TargetRows, decoded
from milan_pipeline.store_record import finished_units, read_store_record
from milan_pipeline.target_records import layout_of
from milan_pipeline.target_store import read_identity
from milan_pipeline.unit_reader import open_unit

OF_THE_CODEC = ("codec", TRANSCODED_FROM)
"""Parts of an identity in which targets differ from those that they were made of."""
OF_THE_VIEW = ("box", "flip", "digest")
"""Fields of a record that say which pixels it is of."""
REMEDY = "give the store that these targets were made of"


def read_originals(url: str, rows: TargetRows) -> tuple[str, torch.Tensor]:
    """Read the same views' targets from another store.

    Args:
        url: a target store of the same teacher and views, finished where these rows are.
        rows: targets by another codec.

    Returns:
        The name of the store's codec, and its targets (n, N, D), float32, row by row.

    Raises:
        MismatchError: it is of another teacher or of other views, or lacks a row.
        DataError, MissingDataError: it is damaged, or there is none.
        StorageError: it cannot be read.
    """
    identity = read_identity(url)
    there, here = (without(one, OF_THE_CODEC) for one in (identity, rows.identity))
    require_same(there, here, what=f"--originals {url}", remedy=REMEDY)
    record = read_store_record(url, identity)
    finished = finished_units(url, identity, record, views=None, allow_unfinished=True)
    unit_of = {(unit.shard.stem, unit.view): (unit, mark) for unit, mark in finished}
    layout = layout_of(identity)
    records = np.zeros(len(rows), layout.dtype)
    for (source, view), numbers in _by_unit(rows).items():
        if (source, view) not in unit_of:
            raise MismatchError(
                f"--originals {url} has no finished view {view} of {source}; {REMEDY}"
            )
        group = open_unit(url, *unit_of[source, view])
        row_of = {str(key): row for row, key in enumerate(group["key"][:])}  # type: ignore[arg-type, index]
        for number in numbers:
            row, ours = row_of.get(rows.key[number]), rows.records[number]
            found = None if row is None else layout.records_of(group, row, row + 1)[0]
            if found is None or any(not np.array_equal(found[f], ours[f]) for f in OF_THE_VIEW):
                raise MismatchError(
                    f"--originals {url} has no target of the pixels that {rows.key[number]} of "
                    f"{source} is of; {REMEDY}"
                )
            records[number] = found
    codec = read_store_codec(url, identity)
    return codec.spec.name, decoded(codec, records)


def _by_unit(rows: TargetRows) -> dict[tuple[str, int], list[int]]:
    """Group the rows' numbers by image shard and view."""
    found = defaultdict(list)
    for number, place in enumerate(zip(rows.source, rows.view, strict=True)):
        found[place].append(number)
    return found
