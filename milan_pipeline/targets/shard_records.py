"""What a target shard holds: one record for each sample, in `.npy` form, read without a copy.

Each sample has a member of its own, `{key}.target.npy`, a structured array (). If the tar headers
would then take more than a tenth of the record, samples share members, in blocks that are named
after their first key: `{key}.targets.npy`, a structured array (n,), and beside it the list of the n
keys, `{key}.keys.json`. The shard's index has a row for each sample in both cases. It points at the
whole member, or at the sample's record in it.

Legend: n samples of a block, N = 1 + L tokens (CLS first), L patches, C code width.
"""

import dataclasses
import functools
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.codecs.registry import CodecSpec, spec_of
from milan_pipeline.errors import DataError
from milan_pipeline.images.views import PLACE_NUMBERS, view_numbers
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.shards.manifest import Shard
from milan_pipeline.shards.writer import MemberPart, Sample, padded, write_shard
from milan_pipeline.targets.layout import OUTER_SHARD, record_dtype
from milan_pipeline.targets.reader import StoredUnit, open_unit
from milan_pipeline.targets.units import AnyMark, Unit, shard_details

TARGET_EXTENSION = "target.npy"
SHARED_EXTENSION = "targets.npy"
KEYS_EXTENSION = "keys.json"
MOST_OVERHEAD = 0.1
"""The largest share of a record that its tar header, padding and array header may take."""
Recode = Callable[[StoredUnit, Sequence[int]], Mapping[str, NDArray[Any]]]
"""Reads rows of a unit; returns codes, prior and any scale as another codec stores them."""


@dataclasses.dataclass(frozen=True)
class RecordLayout:
    """The record's type for a codec and a grid, and the fixed `.npy` header before it."""

    codec: CodecSpec
    patches: int
    width: int
    box_numbers: int = PLACE_NUMBERS

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """Box (4,), with colours (11,), flip, digest, prior (L,), any scale (N,), codes (N, C)."""
        return record_dtype(self.codec, self.patches, self.width, self.box_numbers)

    @functools.cached_property
    def header(self) -> bytes:
        """The bytes before a record that has a member of its own."""
        return self.to_bytes(np.zeros((), dtype=self.dtype))[: -self.dtype.itemsize]

    @functools.cached_property
    def is_shared(self) -> bool:
        """Whether samples share members of a target shard."""
        size = self.dtype.itemsize
        alone = tarfile.BLOCKSIZE + padded(len(self.header) + size)
        return alone - size > MOST_OVERHEAD * size

    @property
    def bytes_per_sample(self) -> int:
        """How many bytes of a target shard are read for one sample."""
        return self.dtype.itemsize + (0 if self.is_shared else len(self.header))

    def to_bytes(self, records: NDArray[np.void]) -> bytes:
        """Serialise one record () or a block of them (n,) as `.npy`."""
        buffer = io.BytesIO()
        np.save(buffer, records, allow_pickle=False)
        return buffer.getvalue()

    def from_bytes(self, data: bytes) -> NDArray[np.void]:
        """View one record in its bytes: a whole member, or its part of a shared member.

        Raises:
            DataError: the bytes have another layout.
        """
        header = b"" if len(data) == self.dtype.itemsize else self.header
        if len(data) != len(header) + self.dtype.itemsize or not data.startswith(header):
            raise DataError("a target record has another layout than its manifest says; pack again")
        record: NDArray[np.void] = np.frombuffer(data, self.dtype, 1, len(header))
        return record[0]  # type: ignore[no-any-return]

    def samples_of(self, keys: Sequence[str], records: NDArray[np.void]) -> Iterator[Sample]:
        """Yield samples as a target shard holds them: one by one, or all as one block.

        Args:
            keys: keys of the samples, in order.
            records: records of the samples (n,).
        """
        if not self.is_shared:
            for key, record in zip(keys, records, strict=True):
                yield Sample(key, {TARGET_EXTENSION: self.to_bytes(record)})
            return
        block, size = self.to_bytes(records), self.dtype.itemsize
        starts = range(len(block) - records.nbytes, len(block), size)
        parts = tuple(MemberPart(key, start, size) for key, start in zip(keys, starts, strict=True))
        yield Sample(keys[0], {SHARED_EXTENSION: block, KEYS_EXTENSION: keys_json(keys)}, parts)

    def records_of(
        self, unit: StoredUnit, rows: Sequence[int], recode: Recode | None = None
    ) -> NDArray[np.void]:
        """Read rows of a unit, in ascending order, as records; priors are made positive.

        Raises:
            DataError: an object of the unit is damaged, or an array is not of the codec's type.
        """
        recoded = {} if recode is None else recode(unit, rows)
        records = np.zeros(len(rows), dtype=self.dtype)
        for name in self.dtype.names or ():
            values = recoded[name] if name in recoded else unit.values(name, rows)
            if values.dtype != records[name].dtype:  # numpy would convert it without a word
                raise DataError(
                    f"a unit's {name} is {values.dtype}, where its codec has "
                    f"{records[name].dtype}; extract the targets again"
                )
            records[name] = values
        if not self.codec.is_directional:
            records["prior"] = decode_prior(records["prior"])
        return records


def target_members() -> Iterator[str]:
    """Yield the names that a streamed sample has for its targets, one for each teacher."""
    yield TARGET_EXTENSION
    for number in itertools.count(1):
        yield f"target-{number}.npy"


def keys_json(keys: Sequence[str]) -> bytes:
    """Serialise the keys of samples that share a member."""
    return json.dumps(keys, ensure_ascii=False, separators=(",", ":")).encode()


def layout_of(identity: Identity) -> RecordLayout:
    """Return the record layout of targets of an identity."""
    height, width = identity["teacher"]["grid"]
    return RecordLayout(
        codec=spec_of(identity["codec"]),
        patches=height * width,
        width=identity["teacher"]["width"],
        box_numbers=view_numbers(identity["view_policy"]),
    )


def write_target_shard(
    folder: str,
    name: str,
    *,
    store: str,
    unit: Unit,
    mark: AnyMark,
    layout: RecordLayout,
    identity_hash: str,
    recode: Recode | None = None,
) -> Shard:
    """Write one unit as a target shard, its keys in the image shard's order.

    If layout and identity are of another codec than the store's, `recode` converts the targets.

    Raises:
        DataError: the unit is damaged.
        MismatchError: the unit was written over since its mark was read.
        StorageError: the folder cannot be written to.
    """
    shard = write_shard(folder, name, _unit_samples(store, unit, mark, layout, recode))
    return dataclasses.replace(shard, details=shard_details(unit, mark, identity_hash))


def _unit_samples(
    store: str, unit: Unit, mark: AnyMark, layout: RecordLayout, recode: Recode | None
) -> Iterator[Sample]:
    stored = open_unit(store, unit, mark)
    if stored.samples != mark.n:
        place = storage.join(store, unit.mark_path)
        raise DataError(
            f"{place} says {mark.n} samples, its unit has {stored.samples}; delete it and extract "
            "again"
        )
    for start in range(0, mark.n, OUTER_SHARD):
        rows = range(start, min(start + OUTER_SHARD, mark.n))
        yield from layout.samples_of(stored.keys(rows), layout.records_of(stored, rows, recode))
