"""The full list of units, those of them that are finished, and those that are left.

A data set of a million image shards and four views has four million units. So a list holds the
shards, and makes a unit when it is asked for.

Legend: s image shards, u units, f finished units.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.schema import Count, DocumentError, Positive, conforming
from milan_pipeline.shards.columns import texts
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.shard_names import stem_of
from milan_pipeline.targets.marks.columns import NO_ROW, BriefMark, MarkColumns, Marks
from milan_pipeline.targets.units import NOT_DONE, AnyMark, Unit, view_name, why_undone


@dataclasses.dataclass(frozen=True)
class RecordedShards(Sequence[Shard]):
    """The image shards of an extent; each is made an object when it is asked for.

    Attributes:
        names: of the shards, in the manifest's order.
        sha256: their hashes.
        samples: how many each holds.
    """

    names: list[str]
    sha256: list[str]
    samples: list[int]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, number: int, /) -> Shard: ...
    @overload
    def __getitem__(self, number: slice, /) -> list[Shard]: ...
    def __getitem__(self, number: int | slice, /) -> Shard | list[Shard]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        return Shard(
            name=self.names[number],
            samples=self.samples[number],
            bytes=0,
            sha256=self.sha256[number],
            index_sha256="",
        )


@dataclasses.dataclass(frozen=True)
class UnitList(Sequence[Unit]):
    """All units of some image shards, view by view, shards in the manifest's order.

    Attributes:
        shards: of the manifest.
        views: how many views each has.
    """

    shards: Sequence[Shard]
    views: int

    def __len__(self) -> int:
        return self.views * len(self.shards)

    @overload
    def __getitem__(self, number: int, /) -> Unit: ...
    @overload
    def __getitem__(self, number: slice, /) -> list[Unit]: ...
    def __getitem__(self, number: int | slice, /) -> Unit | list[Unit]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        view, shard = divmod(range(len(self))[number], len(self.shards))
        return Unit(view, self.shards[shard])

    def __iter__(self) -> Iterator[Unit]:
        return itertools.starmap(Unit, itertools.product(range(self.views), self.shards))

    @functools.cached_property
    def mark_names_s(self) -> NDArray[np.bytes_]:
        """The file names of the marks of a view, (s,)."""
        if isinstance(self.shards, RecordedShards):
            return texts([f"{stem_of(name)}.json" for name in self.shards.names])
        return texts([f"{shard.stem}.json" for shard in self.shards])

    @functools.cached_property
    def sha256_s(self) -> NDArray[np.bytes_]:
        """The hashes of the shards, (s,)."""
        if isinstance(self.shards, RecordedShards):
            return texts(self.shards.sha256)
        return texts([shard.sha256 for shard in self.shards])


class FinishedUnits(Sequence[tuple[Unit, BriefMark]]):
    """The units that are finished, each with its mark, which is made when it is asked for.

    Args:
        units: all units.
        marks: those that there are.
        identity_hash: that of the store; marks of another one do not count.
    """

    def __init__(self, units: UnitList, marks: Marks, identity_hash: str) -> None:
        found = _found(units, marks, identity_hash)
        self._units, self._marks = units, marks
        self._numbers_f = np.flatnonzero(found.current_u)
        self._rows_f = found.rows_u[found.current_u]
        self._number_by_row_of: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._numbers_f)

    @overload
    def __getitem__(self, number: int, /) -> tuple[Unit, BriefMark]: ...
    @overload
    def __getitem__(self, number: slice, /) -> list[tuple[Unit, BriefMark]]: ...
    def __getitem__(
        self, number: int | slice, /
    ) -> tuple[Unit, BriefMark] | list[tuple[Unit, BriefMark]]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        unit = self._units[int(self._numbers_f[number])]
        return unit, self._columns(unit.view).mark(int(self._rows_f[number]))

    def numbers_of(self, view: int, stems: list[str]) -> NDArray[np.int64]:
        """Return the numbers of the units of a view and of these image shards, by their stems.

        It is `NO_ROW` for a unit that is not finished.
        """
        rows = self._columns(view).rows_of(texts([f"{stem}.json" for stem in stems]))
        return self._number_by_row(view)[rows]

    def _number_by_row(self, view: int) -> NDArray[np.int64]:
        """Return the number of the unit of each mark of a view; the last entry is of `NO_ROW`."""
        if view not in self._number_by_row_of:
            number_by_row = np.full(len(self._columns(view)) + 1, NO_ROW)
            of_view = self._numbers_f // max(1, len(self._units.shards)) == view
            number_by_row[self._rows_f[of_view]] = np.flatnonzero(of_view)
            self._number_by_row_of[view] = number_by_row
        return self._number_by_row_of[view]

    @property
    def samples(self) -> int:
        """How many targets they have."""
        return sum(int(columns.samples_n[rows].sum()) for columns, rows in self._by_view())

    def incomplete(self) -> Iterator[tuple[Unit, BriefMark]]:
        """Yield the units that lack images."""
        start = 0
        for columns, rows in self._by_view():
            lacking = np.flatnonzero(np.isin(rows, list(columns.skipped)))
            yield from (self[number] for number in (start + lacking).tolist())
            start += len(rows)

    def _by_view(self) -> Iterator[tuple[MarkColumns, NDArray[np.int64]]]:
        """Yield the marks of each view, and the numbers of those that count."""
        view_f = self._numbers_f // max(1, len(self._units.shards))
        for view in range(self._units.views):
            yield self._columns(view), self._rows_f[view_f == view]

    def _columns(self, view: int) -> MarkColumns:
        return self._marks.of_view(view_name(view))


def list_units(manifest: Manifest, views: int) -> UnitList:
    """Return the full, ordered list of units: view by view, shards in the manifest's order."""
    return UnitList(manifest.shards, views)


def undone_units(
    units: Sequence[Unit], marks: Mapping[str, AnyMark], identity_hash: str
) -> dict[Unit, str]:
    """Return the units that are left to do, in order, and the reason for each."""
    if isinstance(units, UnitList) and isinstance(marks, Marks):
        found = _found(units, marks, identity_hash)
        left = np.flatnonzero(~found.current_u).tolist()
        return {
            units[number]: NOT_DONE
            if found.rows_u[number] == NO_ROW
            else str(why_undone(units[number], marks, identity_hash))
            for number in left
        }
    reasons = ((unit, why_undone(unit, marks, identity_hash)) for unit in units)
    return {unit: reason for unit, reason in reasons if reason is not None}


class _Found(NamedTuple):
    """The number of each unit's mark in those of its view, and whether the unit is done."""

    rows_u: NDArray[np.int64]
    current_u: NDArray[np.bool_]


def _found(units: UnitList, marks: Marks, identity_hash: str) -> _Found:
    rows = np.empty((units.views, len(units.shards)), dtype=np.int64)
    current = np.empty(rows.shape, dtype=np.bool_)
    for view in range(units.views):
        columns = marks.of_view(view_name(view))
        rows[view] = columns.rows_of(units.mark_names_s)
        current[view] = columns.are_current(rows[view], units.sha256_s, identity_hash)
    return _Found(rows.ravel(), current.ravel())


def extent_of(manifest: Manifest, views: int) -> dict[str, Any]:
    """Describe the full list of units for the stage's record: how many views of which shards."""
    return {
        "images_manifest_sha256": manifest.sha256,
        "views": views,
        "shards": {shard.name: shard.sha256 for shard in manifest.shards},
        "samples": [shard.samples for shard in manifest.shards],
    }


class _Extent(TypedDict):
    views: Positive
    shards: dict[str, str]
    samples: list[Count]


def require_extent(document: Any) -> dict[str, Any]:
    """Return the document if it is an extent; otherwise raise `DocumentError`."""
    found = conforming(document, _Extent)
    if len(found["samples"]) != len(found["shards"]):
        raise DocumentError("it has not as many samples as shards")
    return document  # type: ignore[no-any-return]


def units_of_extent(extent: Mapping[str, Any], views: int) -> UnitList:
    """Rebuild the list of units of the first views from what `extent_of` returned."""
    names, sha256 = list(extent["shards"]), list(extent["shards"].values())
    return UnitList(RecordedShards(names, sha256, extent["samples"]), views)
