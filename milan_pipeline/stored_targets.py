"""Open a target store from Python: which units it has, and what the teacher said in each.

Legend: n samples of a unit, N = 1 + L tokens (CLS first, then L patches row-major), D target width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.codec_files import read_store_codec
from milan_pipeline.codecs import Codec, decode_prior
from milan_pipeline.errors import MissingDataError
from milan_pipeline.identity import Identity, content_hash
from milan_pipeline.manifest import Shard
from milan_pipeline.target_store import read_identity
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import Mark, Unit, read_marks
from milan_pipeline.verification import read_codes


class UnitTargets(NamedTuple):
    """The targets of some samples of a unit, decoded.

    Attributes:
        keys: of the samples, n.
        tokens_nND: float32; a fitted codec keeps their directions, not their lengths.
        prior_nL: float32, above zero.
        box: (n, 4) float32: top, left, height, width of the view in pixels of the source.
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
        url: where it lies.
        identity: what its targets are: teacher, preprocessing, view policy, codec.
        codec: decodes them.
        marks: of the finished units, by (view, stem of the image shard).
    """

    url: str
    identity: Identity
    codec: Codec
    marks: Mapping[tuple[int, str], Mark]

    @property
    def units(self) -> list[tuple[int, str]]:
        """The finished units, each a view of an image shard: `(0, "images-000000")`."""
        return list(self.marks)

    def read(self, view: int, shard: str, rows: slice = slice(None)) -> UnitTargets:
        """Read and decode a unit, or some rows of it; every byte is checked by its hash.

        Args:
            view: from 0.
            shard: stem of the image shard's name.
            rows: of the unit, in the image shard's order.

        Raises:
            MissingDataError: the unit is not finished.
            DataError: an object of it is missing or damaged.
        """
        if (view, shard) not in self.marks:
            raise MissingDataError(
                f"{self.url} has no finished unit of view {view} of {shard}; `units` lists them"
            )
        mark = self.marks[view, shard]
        arrays: dict[str, zarr.Array[Any]] = dict(
            open_unit(self.url, _unit_of(mark), mark).arrays()
        )
        codes_nNC, scale_nN = read_codes(arrays, rows)
        return UnitTargets(
            keys=[str(key) for key in np.asarray(arrays["key"][rows])],
            tokens_nND=self.codec.decode(codes_nNC, scale_nN).numpy(),
            prior_nL=decode_prior(np.asarray(arrays["prior"][rows])),
            box=np.asarray(arrays["box"][rows]),
            flip=np.asarray(arrays["flip"][rows]),
        )


def open_targets(url: str) -> StoredTargets:
    """Open a target store, on a disk or anywhere that fsspec reaches.

    Units that are not finished, or were made under another identity, do not exist.

    Raises:
        MissingDataError: there is no store.
        DataError: it, its codec or a mark is damaged, or of a newer version.
        StorageError: it cannot be read.
    """
    identity = read_identity(url)
    views = len(storage.list_names(storage.join(url, "done")))
    current = content_hash(identity)
    marks = [mark for mark in read_marks(url, views).values() if mark.identity_hash == current]
    return StoredTargets(
        url=url,
        identity=identity,
        codec=read_store_codec(url, identity),
        marks={(mark.view, _unit_of(mark).shard.stem): mark for mark in marks},
    )


def _unit_of(mark: Mark) -> Unit:
    shard = Shard(name=mark.shard, samples=mark.n, bytes=0, sha256=mark.sha256, index_sha256="")
    return Unit(mark.view, shard)
