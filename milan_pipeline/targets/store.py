"""Open a target store: its finished units, and the targets in them.

Legend: n samples of a unit, N = 1 + L tokens (CLS first, then L patches row-major), D target width.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.errors import MissingDataError
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.shards.manifest import Shard
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.stored_codes import decoded_targets
from milan_pipeline.targets.units import (
    AnyMark,
    Unit,
    marked_views,
    read_marks,
)


class UnitTargets(NamedTuple):
    """The targets of some samples of a unit, decoded.

    Attributes:
        keys: n keys of the samples.
        tokens_nND: float32; a fitted codec keeps their directions, not their lengths.
        prior_nL: float32, above zero.
        box: (n, 4) float32: top, left, height, width of the view in pixels of the source; with
            changes of colours (n, 11), see `colour_changes.ColourChange`.
        flip: (n,) bool: whether the view was mirrored.
    """

    keys: list[str]
    tokens_nND: NDArray[np.float32]
    prior_nL: NDArray[np.float32]
    box: NDArray[np.float32]
    flip: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTargets:
    """A target store, open for reading; `open_targets` makes one.

    Attributes:
        url: the place of the store.
        identity: what its targets are: teacher, preprocessing, view policy, codec.
        codec: decodes the targets.
        marks: marks of the finished units, by (view, stem of the image shard).
    """

    url: str
    identity: Identity
    codec: Codec
    marks: Mapping[tuple[int, str], AnyMark]

    @property
    def units(self) -> list[tuple[int, str]]:
        """The finished units, each a view of an image shard: `(0, "images-000000")`."""
        return list(self.marks)

    def read(self, view: int, shard: str, rows: slice = slice(None)) -> UnitTargets:
        """Read and decode a unit, or some of its rows; every byte is checked by its hash.

        Args:
            view: number of the view, from 0.
            shard: stem of the image shard's name.
            rows: which rows, ascending; rows have the order of the image shard.

        Raises:
            MissingDataError: the unit is not finished.
            DataError: an object of the unit is missing or damaged.
        """
        if (view, shard) not in self.marks:
            raise MissingDataError(
                f"{self.url} has no finished unit of view {view} of {shard}; `units` lists them"
            )
        mark = self.marks[view, shard]
        unit = open_unit(self.url, _unit_of(mark), mark)
        wanted = range(unit.samples)[rows]
        return UnitTargets(
            keys=unit.keys(wanted),
            tokens_nND=decoded_targets(unit, self.codec, wanted).numpy(),
            prior_nL=unit.prior(wanted),
            box=unit.values("box", wanted),
            flip=unit.values("flip", wanted),
        )


def open_targets(url: str | os.PathLike[str]) -> StoredTargets:
    """Open a target store on a disk or at any URL that fsspec supports.

    Units that are not finished, or that have another identity, are left out.

    Raises:
        MissingDataError: there is no store.
        DataError: the store, its codec or a mark is damaged, or of a newer version.
        StorageError: the store cannot be read.
    """
    url = os.fspath(url)
    identity = read_identity(url)
    current = content_hash(identity)
    marks = read_marks(url, marked_views(url)).values()
    finished = [mark for mark in marks if mark.identity_hash == current]
    return StoredTargets(
        url=url,
        identity=identity,
        codec=read_store_codec(url, identity),
        marks={(mark.view, _unit_of(mark).shard.stem): mark for mark in finished},
    )


def _unit_of(mark: AnyMark) -> Unit:
    shard = Shard(name=mark.shard, samples=mark.n, bytes=0, sha256=mark.sha256, index_sha256="")
    return Unit(mark.view, shard)
