"""Check a unit of a target store: every object, every key and every number in it.

Legend: n samples of the unit, N = 1 + L tokens, L patches.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import LARGEST_FACTOR, Codec, Encoded, decode_prior
from milan_pipeline.codecs.registry import spec_of
from milan_pipeline.errors import reason_of
from milan_pipeline.images.views import policy_of, view_numbers
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import OUTER_SHARD, ZARR_JSON, UnitBlock, code_shape, empty_block
from milan_pipeline.targets.reader import StoredUnit, open_unit
from milan_pipeline.targets.stored_codes import codes_of
from milan_pipeline.targets.units import Mark, Unit, why_undone

PRIOR_SLACK = 1e-3
"""A prior is part of a softmax, so its sum is at most 1, apart from rounding."""
DECODED_AT_ONCE = 16  # samples, so that their floats stay in the processor's cache
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""What reading may raise if objects match their hashes, but are not valid Zarr."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreCheck:
    """Checks units of one store.

    Attributes:
        url: the store.
        identity: that of the store.
        images: the image shards that it was made from; None omits the checks against them.
    """

    url: str
    identity: Identity
    images: Manifest | None = None

    def faults(self, unit: Unit, mark: Mark | None) -> list[str]:
        """List everything that is wrong with a unit; the list is empty if it is sound.

        Raises:
            StorageError: the store or an index cannot be read.
            DataError: an index is not the one that the images' manifest lists.
        """
        marks = {} if mark is None else {unit.mark_path: mark}
        undone = why_undone(unit, marks, self._identity_hash)
        if mark is None or undone is not None:
            return [undone or "not done yet"]
        try:
            stored = open_unit(self.url, unit, mark)
        except DAMAGE as error:
            return [_in_words(error)]
        if faults := self._faults_of_arrays(stored, mark):
            return faults
        block, faults = _read_small_arrays(stored)
        faults += self._faults_of_codes(stored)
        if block is not None:
            faults += self._faults_of_rows(unit, mark, block)
        return faults

    @functools.cached_property
    def _identity_hash(self) -> str:
        return content_hash(self.identity)

    @functools.cached_property
    def _shards(self) -> frozenset[Shard]:
        return frozenset(self.images.shards if self.images else ())

    @functools.cached_property
    def _codec(self) -> Codec:
        return read_store_codec(self.url, self.identity)

    @functools.cached_property
    def _template(self) -> UnitBlock:
        """A block of no samples, whose arrays have the types and widths that a unit must have."""
        numbers = view_numbers(self.identity["view_policy"])
        height, width = self.identity["teacher"]["grid"]
        shape = code_shape(self.identity)
        return empty_block(spec_of(self.identity["codec"]), 1 + height * width, shape, numbers)

    def _faults_of_arrays(self, stored: StoredUnit, mark: Mark) -> list[str]:
        """List the arrays that have another shape or type than they must, or lack chunks."""
        known = {ZARR_JSON}
        faults: list[str] = []
        for name, wanted in vars(self._template).items():
            if wanted is None:
                continue
            try:
                array = stored.array(name)
            except DAMAGE as error:
                faults.append(f"{name}: {_in_words(error)}")
                continue
            is_text = name == "key"
            shape = (mark.n, *np.shape(wanted)[1:])
            if array.shape != shape:
                faults.append(f"{name} has the shape {array.shape}, not {shape}")
            elif not is_text and array.dtype != wanted.dtype:
                faults.append(f"{name} is of type {array.dtype}, not {wanted.dtype}")
            else:
                known |= {f"{name}/{ZARR_JSON}", *(chunks := _chunk_paths(name, array))}
                if missing := set(chunks) - set(mark.objects):
                    faults.append(f"{name}: the mark does not know of {min(missing)}")
        if not faults and (strange := set(mark.objects) - known):
            faults.append(f"the mark lists {min(strange)}, which is of no array")
        return faults

    def _faults_of_codes(self, stored: StoredUnit) -> Iterator[str]:
        """Decode all targets, an outer shard at a time."""
        for start in range(0, stored.samples, OUTER_SHARD):
            rows = range(start, min(start + OUTER_SHARD, stored.samples))
            try:
                encoded = codes_of(stored, rows)
            except DAMAGE as error:
                yield f"codes: {_in_words(error)}"
                return
            if not _are_numbers(self._codec, encoded):
                yield f"codes of samples {rows.start} to {rows.stop - 1} decode to no numbers"

    def _faults_of_rows(self, unit: Unit, mark: Mark, block: UnitBlock) -> Iterator[str]:
        yield from _faults_of_priors(block.prior)
        yield from self._faults_of_boxes(unit.view, block)
        if len(set(block.key)) != len(block.key):
            yield "key holds a key twice"
        if self.images is None:
            return
        if unit.shard not in self._shards:
            yield "its image shard is not in the images' manifest"
            return
        table = load_index(self.images, unit.shard)
        skipped = {row["key"] for row in mark.skipped}
        rows = [row for row, key in enumerate(keys_of(table)) if key not in skipped]
        keys = [key for key in keys_of(table) if key not in skipped]
        if unknown := skipped - set(keys_of(table)):
            yield f"the mark skips {min(unknown)!r}, which the image shard does not have"
        if keys != block.key:
            yield f"key is not the image shard's list of keys: {_first_difference(block.key, keys)}"
        elif (differ := np.flatnonzero(table["xxh3"][rows] != block.digest)).size:
            yield f"digest is of another image under the key {keys[differ[0]]!r}"

    def _faults_of_boxes(self, view: int, block: UnitBlock) -> Iterator[str]:
        """Compare every box with the one that the view policy draws."""
        policy = policy_of(self.identity["view_policy"])
        for key, box, flip, (height, width) in zip(
            block.key, block.box.tolist(), block.flip.tolist(), block.size.tolist(), strict=True
        ):
            if min(height, width) < 1:
                yield f"size of {key!r} is {height} x {width}"
                return
            drawn = policy.box(height, width, key, view)
            if (*box, flip) != (*drawn.numbers, drawn.flip):
                yield f"box of {key!r} is {box}, not the one that the view policy draws"
                return


def _read_small_arrays(stored: StoredUnit) -> tuple[UnitBlock | None, list[str]]:
    """Read all arrays but the codes; return None, and what is wrong, where one cannot be read."""
    values: dict[str, Any] = {"scale": None}
    faults = []
    for name in stored.names:
        try:
            if name != "codes":
                values[name] = stored.keys() if name == "key" else stored.values(name)
        except DAMAGE as error:
            faults.append(f"{name}: {_in_words(error)}")
    if faults:
        return None, faults
    return UnitBlock(codes=np.empty((stored.samples, 0)), **values), []


def _are_numbers(codec: Codec, encoded: Encoded) -> bool:
    """Tell whether every component decodes to a finite number."""
    for first in range(0, len(encoded.codes_nNC), DECODED_AT_ONCE):
        tokens_nND = codec.decode(*encoded.at(slice(first, first + DECODED_AT_ONCE)))
        # A component that is not finite makes the sum of its token so. Testing the sums takes half
        # of the time of testing each component.
        if not bool(tokens_nND.sum(dim=-1).isfinite().all()):
            return False
    return True


def _faults_of_priors(stored_nL: NDArray[Any]) -> Iterator[str]:
    is_coded = stored_nL.dtype == np.uint8
    prior_nL = decode_prior(stored_nL) / LARGEST_FACTOR if is_coded else stored_nL
    sums_n = prior_nL.sum(axis=1, dtype=np.float64)
    # A NaN fails every comparison, so this form counts it as a fault.
    wrong_n = ~((prior_nL >= 0).all(axis=1) & (sums_n > 0) & (sums_n <= 1 + PRIOR_SLACK))
    if wrong_n.any():
        row = int(np.flatnonzero(wrong_n)[0])
        yield f"prior of sample {row} sums to {sums_n[row]:.6g}, is negative or no number"


def _chunk_paths(name: str, array: zarr.Array[Any]) -> list[str]:
    """List the paths of an array's chunks; only the first dimension has more than one."""
    rows = (array.shards or array.chunks)[0]
    count = -(-array.shape[0] // rows)
    return [f"{name}/c/{number}" + "/0" * (array.ndim - 1) for number in range(count)]


def _first_difference(found: list[str], wanted: list[str]) -> str:
    row = next(
        (row for row, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
        min(len(found), len(wanted)),
    )
    return f"row {row} is {found[row : row + 1]}, not {wanted[row : row + 1]}"


def _in_words(error: Exception) -> str:
    """Return an error's message without its remedy; verify gives a better remedy."""
    return reason_of(error).split("; delete ")[0]
