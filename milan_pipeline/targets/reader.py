"""Read rows of a finished unit: keys, priors, views, and arrays as they are stored.

Each object of the unit is fetched once and checked before a byte of it is handed out.

Legend: n samples, N = 1 + L tokens (CLS first), L patches, D target width, C code width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.errors import DataError
from milan_pipeline.images.views import Box, box_of
from milan_pipeline.targets.units import AnyMark, Unit, whole_mark
from milan_pipeline.targets.verified_objects import VerifiedObjects

NEAR = 8
"""Rows that are no further apart are read together, with those between them."""


class StoredUnit:
    """A unit that is open for reading.

    `rows` are row numbers in ascending order; None stands for all rows. Rows that lie close to
    each other are read together.
    """

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @property
    def names(self) -> list[str]:
        """The names of the unit's arrays."""
        return sorted(self._group.array_keys())

    def has(self, name: str) -> bool:
        """Tell whether the unit has an array of this name."""
        return name in self._group

    @property
    def samples(self) -> int:
        """How many samples have targets here."""
        return self.array("key").shape[0]

    def array(self, name: str) -> zarr.Array[Any]:
        """Open one array; `layout.UnitBlock` lists shapes and types.

        Raises:
            DataError: it is a group and no array, or its metadata is missing or damaged.
        """
        if name not in self._arrays:
            found = self._group[name]
            if not isinstance(found, zarr.Array):
                raise DataError(f"{name} is no array; delete the unit's mark and extract it again")
            self._arrays[name] = found
        return self._arrays[name]

    def values(self, name: str, rows: Sequence[int] | None = None) -> NDArray[Any]:
        """Read rows of one array as they are stored.

        Raises:
            DataError: an object of the array is missing or damaged.
            StorageError: the store cannot be read.
        """
        array = self.array(name)
        if rows is None:
            return np.asarray(array[:])
        if not len(rows):
            return np.asarray(array[:0])
        rows_n = np.asarray(rows)
        parts = []
        for run in np.split(rows_n, np.flatnonzero(np.diff(rows_n) > NEAR) + 1):
            values = np.asarray(array[run[0] : run[-1] + 1])
            parts.append(values if len(values) == len(run) else values[run - run[0]])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def keys(self, rows: Sequence[int] | None = None) -> list[str]:
        """Read the keys of the samples."""
        return [str(key) for key in self.values("key", rows)]

    def prior(self, rows: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Read and decode priors (n, L), above zero."""
        return decode_prior(self.values("prior", rows))

    def boxes(self, rows: Sequence[int] | None = None) -> list[Box]:
        """Read which crop of its image each view is."""
        numbers, flips = self.values("box", rows).tolist(), self.values("flip", rows).tolist()
        return [box_of(of_view, flip=flip) for of_view, flip in zip(numbers, flips, strict=True)]


def open_unit(url: str, unit: Unit, mark: AnyMark, *, by_chunk: bool = False) -> StoredUnit:
    """Open a finished unit for reading.

    Reading an array raises `DataError` where one of its objects is missing or is not what was
    written: a missing chunk is never zeros.

    Args:
        url: the store.
        unit: which one.
        mark: of the unit; its list of objects and their hashes is read if it is without.
        by_chunk: read of large objects only the chunks that are asked for, and check these alone.

    Raises:
        DataError: the unit's own metadata is missing or damaged.
        MismatchError: see `whole_mark`.
        StorageError: the store cannot be read.
    """
    objects = VerifiedObjects(
        storage.join(url, unit.path),
        whole_mark(url, unit, mark).objects,
        remedy=remedy_of(url, unit, mark),
        by_chunk=by_chunk,
    )
    return StoredUnit(zarr.open_group(objects, mode="r", zarr_format=3))


def remedy_of(url: str, unit: Unit, mark: AnyMark) -> str:
    """Return what mends a damaged unit of a store, for an error.

    Args:
        url: the store.
        unit: which one.
        mark: of the unit.
    """
    stage = "extract-targets" if mark.source_unit is None else "transcode"
    return f"delete {storage.join(url, unit.mark_path)} and run {stage} again"
