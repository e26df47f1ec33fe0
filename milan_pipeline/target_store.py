"""The Zarr v3 layout of targets: create the root, write one unit, open one verified.

A unit is built in memory by zarr's own pipeline, one outer shard at a time, and each finished
object is put in its place atomically. So nothing is ever deleted, a rerun writes the same bytes
over the same names, and any URL that storage.py can write to will do.

Legend: n samples of the unit, N = 1 + L tokens, L patches, C code width.
"""

import dataclasses
import json
from typing import Any

import numpy as np
import xxhash
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from milan_pipeline import storage
from milan_pipeline.codecs import Codec
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.identity import Identity, content_hash, require_same
from milan_pipeline.units import Mark, Unit, revoked, view_name

FORMAT_VERSION = 1
OUTER_SHARD = 256


@dataclasses.dataclass(kw_only=True)
class UnitBlock:
    """Some samples of a unit, in order: what extraction hands to the writer.

    Shapes and types: key n str; codes (n, N, C); scale (n, N) float16 or None; prior (n, L)
    float32; box (n, 4) float32: top, left, height, width in source pixels; flip (n,) bool;
    size (n, 2) int32: source height, width; digest (n,) uint64.
    """

    key: list[str]
    codes: NDArray[Any]
    scale: NDArray[np.float16] | None
    prior: NDArray[np.float32]
    box: NDArray[np.float32]
    flip: NDArray[np.bool_]
    size: NDArray[np.int32]
    digest: NDArray[np.uint64]


def create_root(url: str, identity: Identity, *, overwrite: bool = False) -> None:
    """Create the store's root if it is absent; then check that it holds these targets.

    Any number of processes may come here at once: those with equal targets write equal bytes.
    Others are refused here or, if they both were in the same moment, when they come here again.

    Args:
        url: the store.
        identity: what its targets are.
        overwrite: replace another identity; units that were made under it become undone.

    Raises:
        MismatchError: the store holds targets of another identity; each field is named.
    """
    remedy = "give another --out for these targets, or --overwrite to extract them anew"
    if storage.exists(storage.join(url, "zarr.json")) and not overwrite:
        require_same(read_identity(url), identity, what=url, remedy=remedy)
        return
    attributes = {
        "format_version": FORMAT_VERSION,
        "identity": identity,
        "identity_hash": content_hash(identity),
    }
    storage.put_bytes(storage.join(url, "zarr.json"), _group_bytes(attributes))
    require_same(read_identity(url), identity, what=url, remedy=remedy)


def read_identity(url: str) -> Identity:
    """Read what a store's targets are.

    Raises:
        MissingDataError: there is no store.
        DataError: it is no target store, of another format version, or damaged.
    """
    try:
        attributes = json.loads(storage.read_bytes(storage.join(url, "zarr.json")))["attributes"]
        version, identity = attributes["format_version"], attributes["identity"]
        stated = attributes["identity_hash"]
    except MissingDataError:
        remedy = "`milan-pipeline extract-targets` makes one"
        raise MissingDataError(f"{url} holds no target store; {remedy}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{url} is no target store ({error}); extract the targets again") from error
    if version != FORMAT_VERSION or not isinstance(identity, dict):
        raise DataError(
            f"{url} has format version {version!r}, this program reads {FORMAT_VERSION}; use the "
            "version that wrote it"
        )
    if content_hash(identity) != stated:
        raise DataError(
            f"{url}/zarr.json does not match its identity_hash; it is damaged, extract-targets "
            "--overwrite makes it again"
        )
    return identity


def bytes_per_sample(codec: Codec, patches: int, width: int) -> int:
    """Return what one sample takes in the store, checksums and chunk index included."""
    tokens = 1 + patches
    codes = tokens * codec.code_width(width) * codec.dtype.itemsize
    crc_and_index, box_flip_size_digest, key = 4 + 16, 16 + 1 + 8 + 8, 24
    scale = 2 * tokens if codec.has_scale else 0
    return codes + crc_and_index + scale + 4 * patches + box_flip_size_digest + key


class UnitWriter:
    """Write one unit: blocks in order, then `finish`, which leaves the mark."""

    def __init__(
        self, url: str, unit: Unit, *, identity_hash: str, codec: Codec, shape: tuple[int, int]
    ) -> None:
        """Start a unit.

        Args:
            url: the store.
            unit: what is written; its shard's sample count bounds the number of rows.
            identity_hash: of the store.
            codec: how the codes are stored.
            shape: (N, C) of one sample's codes.
        """
        self._url = url
        self._unit = unit
        mark_url = storage.join(url, unit.mark_path)
        if storage.exists(mark_url):
            # A stale mark must not vouch for objects of which some are already new.
            storage.put_bytes(mark_url, revoked(unit).to_bytes())
        self._identity_hash = identity_hash
        self._capacity = max(1, unit.shard.samples)
        self._objects: dict[str, str] = {}
        self._memory: dict[str, Any] = {}
        self._group = zarr.create_group(MemoryStore(self._memory), zarr_format=3)
        outer = min(OUTER_SHARD, self._capacity)
        self._outer = outer
        self._codes = self._group.create_array(
            "codes",
            shape=(self._capacity, *shape),
            chunks=(1, *shape),
            shards=(outer, *shape),
            dtype=codec.dtype,
            compressors=[Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        self._pending: list[NDArray[Any]] = []
        self._written = 0
        # Without a sample, the unit still has every array.
        self._blocks = [_empty_block(codec, shape)]

    def add(self, block: UnitBlock) -> None:
        """Append samples; whole outer shards go to the store at once."""
        self._pending.append(block.codes)
        # The codes are the bulk: they are not kept, the rest of the block is.
        self._blocks.append(dataclasses.replace(block, codes=block.codes[:0]))
        while sum(map(len, self._pending)) >= self._outer:
            codes = np.concatenate(self._pending)
            self._write_codes(codes[: self._outer])
            self._pending = [codes[self._outer :]]

    def finish(self, skipped: list[dict[str, str]]) -> Mark:
        """Write what is left, the small arrays and, last, the unit's mark."""
        rest = np.concatenate(self._pending) if self._pending else None
        count = self._written + (0 if rest is None else len(rest))
        self._codes.resize((count, *self._codes.shape[1:]))
        if rest is not None and len(rest):
            self._write_codes(rest)
        self._write_small_arrays()
        self._drain(keep_metadata=False)
        view_group = storage.join(self._url, view_name(self._unit.view), "zarr.json")
        storage.put_bytes(view_group, _group_bytes({}))
        mark = Mark(
            shard=self._unit.shard.name,
            sha256=self._unit.shard.sha256,
            identity_hash=self._identity_hash,
            view=self._unit.view,
            n=count,
            skipped=skipped,
            objects=dict(sorted(self._objects.items())),
        )
        storage.put_bytes(storage.join(self._url, self._unit.mark_path), mark.to_bytes())
        return mark

    def _write_codes(self, codes: NDArray[Any]) -> None:
        self._codes[self._written : self._written + len(codes)] = codes
        self._written += len(codes)
        self._drain(keep_metadata=True)

    def _write_small_arrays(self) -> None:
        for name in ("scale", "prior", "box", "flip", "size", "digest"):
            parts = [getattr(block, name) for block in self._blocks]
            if parts[0] is not None:
                self._write_array(name, np.concatenate(parts))
        keys = [key for block in self._blocks for key in block.key]
        self._write_array("key", np.array(keys, dtype=object))

    def _write_array(self, name: str, values: NDArray[Any]) -> None:
        rows = min(OUTER_SHARD, max(1, len(values)))
        array = self._group.create_array(
            name,
            shape=values.shape,
            chunks=(rows, *values.shape[1:]),
            dtype=str if values.dtype == object else values.dtype,
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        if len(values):
            array[:] = values

    def _drain(self, *, keep_metadata: bool) -> None:
        """Move finished objects from memory to the store; array metadata goes last."""
        for path in sorted(self._memory, key=lambda path: (path.endswith("zarr.json"), path)):
            if keep_metadata and path.endswith("zarr.json"):
                continue
            data = self._memory.pop(path).to_bytes()
            storage.put_bytes(storage.join(self._url, self._unit.path, path), data)
            self._objects[path] = xxhash.xxh3_128_hexdigest(data)


def _empty_block(codec: Codec, shape: tuple[int, int]) -> UnitBlock:
    tokens, _ = shape
    return UnitBlock(
        key=[],
        codes=np.zeros((0, *shape), codec.dtype),
        scale=np.zeros((0, tokens), np.float16) if codec.has_scale else None,
        prior=np.zeros((0, tokens - 1), np.float32),
        box=np.zeros((0, 4), np.float32),
        flip=np.zeros(0, np.bool_),
        size=np.zeros((0, 2), np.int32),
        digest=np.zeros(0, np.uint64),
    )


def open_unit(url: str, unit: Unit, mark: Mark) -> zarr.Group:
    """Open a finished unit for reading, after checking every one of its objects.

    Raises:
        DataError: an object is missing or not what was written; a missing chunk is never zeros.
    """
    for path, digest in mark.objects.items():
        place = storage.join(url, unit.path, path)
        try:
            found = xxhash.xxh3_128_hexdigest(storage.read_bytes(place))
        except MissingDataError:
            found = None
        if found != digest:
            state = "is missing" if found is None else "is damaged"
            raise DataError(
                f"{place} {state}; delete {storage.join(url, unit.mark_path)} and run "
                "extract-targets again"
            )
    return zarr.open_group(storage.join(url, unit.path), mode="r")


def _group_bytes(attributes: dict[str, Any]) -> bytes:
    memory: dict[str, Any] = {}
    zarr.create_group(MemoryStore(memory), zarr_format=3, attributes=attributes)
    data: bytes = memory["zarr.json"].to_bytes()
    return data
