"""Marks as columns: they take 200 bytes each, objects take 1,000.

Legend: n marks of a view, in the order of their file names; u units.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from milan_pipeline.images.budget import Skipped
from milan_pipeline.shards.columns import text_of, texts

NO_ROW = -1


class BriefMark(msgspec.Struct, gc=False):
    """A mark without the list of objects, which is most of it; see `units.Mark`.

    `unit_sha256` is the hash of the whole mark.
    """

    shard: str
    sha256: str
    identity_hash: str
    view: int
    n: int
    skipped: list[Skipped]
    source_unit: str | None
    unit_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkColumns:
    """The marks of one view.

    Attributes:
        names_n: their file names, ascending.
        shards_n: names of the image shards.
        sha256_n: hashes of the image shards.
        sources_n: `source_unit`; empty for a unit that a teacher made.
        units_n: `unit_sha256`.
        samples_n: samples that have a target.
        kinds_n: numbers of `kinds`.
        kinds: what many marks have in common: the hash of the identity, and the view.
        skipped: the images without a target, by the number of the mark.
    """

    names_n: NDArray[np.bytes_]
    shards_n: NDArray[np.bytes_]
    sha256_n: NDArray[np.bytes_]
    sources_n: NDArray[np.bytes_]
    units_n: NDArray[np.bytes_]
    samples_n: NDArray[np.int64]
    kinds_n: NDArray[np.int32]
    kinds: list[tuple[str, int]]
    skipped: dict[int, list[Skipped]]

    @classmethod
    def of(cls, names: Sequence[str], marks: Sequence[BriefMark]) -> "MarkColumns":
        """Put marks into columns; their file names are ascending."""
        kinds = {(mark.identity_hash, mark.view): None for mark in marks}
        number_of = {kind: number for number, kind in enumerate(kinds)}
        kinds_of = [number_of[mark.identity_hash, mark.view] for mark in marks]
        return cls(
            names_n=texts(list(names)),
            shards_n=texts([mark.shard for mark in marks]),
            sha256_n=texts([mark.sha256 for mark in marks]),
            sources_n=texts([mark.source_unit or "" for mark in marks]),
            units_n=texts([mark.unit_sha256 for mark in marks]),
            samples_n=np.array([mark.n for mark in marks], dtype=np.int64),
            kinds_n=np.array(kinds_of, dtype=np.int32),
            kinds=list(kinds),
            skipped={number: mark.skipped for number, mark in enumerate(marks) if mark.skipped},
        )

    def __len__(self) -> int:
        return len(self.names_n)

    def mark(self, row: int) -> BriefMark:
        """Return one mark."""
        identity_hash, view = self.kinds[self.kinds_n[row]]
        return BriefMark(
            shard=text_of(self.shards_n[row]),
            sha256=text_of(self.sha256_n[row]),
            identity_hash=identity_hash,
            view=view,
            n=int(self.samples_n[row]),
            skipped=self.skipped.get(row, []),
            source_unit=text_of(self.sources_n[row]) or None,
            unit_sha256=text_of(self.units_n[row]),
        )

    def rows_of(self, names_u: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the numbers (u,) of the marks of these names, `NO_ROW` where there is none."""
        if np.array_equal(names_u, self.names_n):  # as it is where all is done
            return np.arange(len(self))
        if not len(self):
            return np.full(len(names_u), NO_ROW)
        found_u = np.searchsorted(self.names_n, names_u).clip(max=len(self) - 1)
        return np.where(self.names_n[found_u] == names_u, found_u, NO_ROW)

    def lacking(self, names: list[str]) -> list[str]:
        """Return the names, of these, that have no mark here."""
        if len(names) == len(self):
            return []
        rows = self.rows_of(texts(names)).tolist()
        return [name for name, row in zip(names, rows, strict=True) if row == NO_ROW]

    def are_current(
        self, rows_u: NDArray[np.int64], sha256_u: NDArray[np.bytes_], identity_hash: str
    ) -> NDArray[np.bool_]:
        """Tell which units are done: see `units.why_undone`.

        Args:
            rows_u: the number of each unit's mark, `NO_ROW` where it has none.
            sha256_u: hashes of the units' image shards.
            identity_hash: that of the store.
        """
        of_kind = [bool(kind[0]) and kind[0] == identity_hash for kind in self.kinds]
        current_u: NDArray[np.bool_] = rows_u != NO_ROW
        rows = rows_u[current_u]
        same = self.sha256_n[rows] == sha256_u[current_u]
        current_u[current_u] = same & np.array(of_kind, dtype=np.bool_)[self.kinds_n[rows]]
        return current_u

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name."""
        return {name: one for name, one in vars(self).items() if isinstance(one, np.ndarray)}

    def take(self, rows_u: NDArray[np.int64]) -> "MarkColumns":
        """Return some of the marks, in this order."""
        kept: dict[str, Any] = {name: one[rows_u] for name, one in self.columns().items()}
        skipped = {
            number: self.skipped[row]
            for number, row in enumerate(rows_u.tolist() if self.skipped else [])
            if row in self.skipped
        }
        return dataclasses.replace(self, **kept, skipped=skipped)

    def merged(self, other: "MarkColumns") -> "MarkColumns":
        """Return the marks of both; no name is in both."""
        kinds = dict.fromkeys((*self.kinds, *other.kinds))
        number_of = {kind: number for number, kind in enumerate(kinds)}
        renamed = [
            np.array([number_of[kind] for kind in one.kinds], dtype=np.int32)[one.kinds_n]
            for one in (self, other)
        ]
        both = {
            name: np.concatenate([column, getattr(other, name)])
            for name, column in self.columns().items()
        }
        shifted = {len(self) + row: images for row, images in other.skipped.items()}
        together = MarkColumns(
            **both | {"kinds_n": np.concatenate(renamed)},
            kinds=list(kinds),
            skipped=self.skipped | shifted,
        )
        return together.take(np.argsort(together.names_n, kind="stable"))


class Marks(Mapping[str, BriefMark]):
    """Marks by their paths in the store, such as `done/view-00/x.json`; each is made when asked.

    Args:
        views: the marks of each view, by the view's name.
    """

    def __init__(self, views: Mapping[str, MarkColumns]) -> None:
        self._views = views

    def of_view(self, view: str) -> MarkColumns:
        """Return the marks of a view, which may have none."""
        return self._views.get(view) or MarkColumns.of([], [])

    def __len__(self) -> int:
        return sum(map(len, self._views.values()))

    def __iter__(self) -> Iterator[str]:
        for view, columns in self._views.items():
            for name in columns.names_n:
                yield f"done/{view}/{text_of(name)}"

    def __getitem__(self, path: str) -> BriefMark:
        folder, _, name = path.rpartition("/")
        columns = self.of_view(folder.removeprefix("done/"))
        row = int(columns.rows_of(texts([name]))[0])
        if row == NO_ROW:
            raise KeyError(path)
        return columns.mark(row)
