"""One sample of a target shard: a structured 0-d array in `.npy` form, read without a copy.

Legend: N = 1 + L tokens (CLS first), L patches, C code width.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from milan_pipeline.codecs import CodecSpec, decode_prior, spec_of
from milan_pipeline.errors import DataError
from milan_pipeline.identity import Identity
from milan_pipeline.manifest import Shard
from milan_pipeline.shards import Sample, write_shard
from milan_pipeline.target_store import OUTER_SHARD
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import Mark, Unit, shard_details

TARGET_EXTENSION = "target.npy"
Recode = Callable[[zarr.Group, int, int], Mapping[str, NDArray[Any]]]
"""Reads some rows of a unit; returns codes, prior and any scale by another codec."""


@dataclasses.dataclass(frozen=True)
class RecordLayout:
    """The record's type for a codec and a grid, and the fixed `.npy` header before it."""

    codec: CodecSpec
    patches: int
    width: int

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """Box (4,), flip, digest, prior (L,), scale (N,) if the codec has one, codes (N, C)."""
        tokens = 1 + self.patches
        fields: list[Any] = [
            ("box", "<f4", (4,)),
            ("flip", "?"),
            ("digest", "<u8"),
            ("prior", self.codec.prior_dtype, (self.patches,)),
        ]
        if self.codec.has_scale:
            fields.append(("scale", "<f2", (tokens,)))
        fields.append(("codes", self.codec.dtype, (tokens, self.codec.code_width(self.width))))
        return np.dtype(fields)

    @functools.cached_property
    def header(self) -> bytes:
        """The bytes before the record."""
        return self.to_bytes(np.zeros((), dtype=self.dtype))[: -self.dtype.itemsize]

    @property
    def bytes_per_sample(self) -> int:
        """The size of one member of a target shard, without tar headers."""
        return len(self.header) + self.dtype.itemsize

    def to_bytes(self, record: NDArray[np.void]) -> bytes:
        """Serialise one record as `.npy`."""
        buffer = io.BytesIO()
        np.save(buffer, record, allow_pickle=False)
        return buffer.getvalue()

    def from_bytes(self, data: bytes) -> NDArray[np.void]:
        """View one record in its bytes.

        Raises:
            DataError: the bytes are of another layout.
        """
        if len(data) != self.bytes_per_sample or not data.startswith(self.header):
            raise DataError("a target record has another layout than its manifest says; pack again")
        record: NDArray[np.void] = np.frombuffer(data, self.dtype, 1, len(self.header))
        return record[0]  # type: ignore[no-any-return]

    def records_of(
        self, unit: zarr.Group, start: int, stop: int, recode: Recode | None = None
    ) -> NDArray[np.void]:
        """Read rows `start:stop` of a unit as records; priors are clamped to be positive."""
        recoded = {} if recode is None else recode(unit, start, stop)
        records = np.zeros(stop - start, dtype=self.dtype)
        for name in self.dtype.names or ():
            records[name] = recoded[name] if name in recoded else unit[name][start:stop]  # type: ignore[index]
        if not self.codec.needs_fit:
            records["prior"] = decode_prior(records["prior"])
        return records


def layout_of(identity: Identity) -> RecordLayout:
    """Return the record layout of targets of an identity."""
    height, width = identity["teacher"]["grid"]
    codec = spec_of(identity["codec"])
    return RecordLayout(codec=codec, patches=height * width, width=identity["teacher"]["width"])


def write_target_shard(
    folder: str,
    name: str,
    *,
    store: str,
    unit: Unit,
    mark: Mark,
    layout: RecordLayout,
    recode: Recode | None = None,
) -> Shard:
    """Write one unit as a target shard, its keys in the image shard's order.

    Where the layout is of another codec than the store's, `recode` makes the one of the other.

    Raises:
        DataError: the unit is damaged.
        StorageError: the place cannot be written.
    """
    shard = write_shard(folder, name, _unit_samples(store, unit, mark, layout, recode))
    return dataclasses.replace(shard, details=shard_details(unit, mark))


def _unit_samples(
    store: str, unit: Unit, mark: Mark, layout: RecordLayout, recode: Recode | None
) -> Iterator[Sample]:
    group = open_unit(store, unit, mark)
    for start in range(0, mark.n, OUTER_SHARD):
        stop = min(start + OUTER_SHARD, mark.n)
        records = layout.records_of(group, start, stop, recode)
        keys = group["key"][start:stop]  # type: ignore[index]
        for key, record in zip(keys, records, strict=True):  # type: ignore[arg-type]
            yield Sample(str(key), {TARGET_EXTENSION: layout.to_bytes(record)})
