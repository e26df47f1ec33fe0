"""The Zarr v3 layout of targets: its root and the arrays of one unit.

`writer.py` writes a unit, `reader.py` reads one.

Legend: n samples of the unit, N = 1 + L tokens, L patches, C code width.
"""

import dataclasses
import math
from typing import Any, TypedDict

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from milan_pipeline import storage
from milan_pipeline.codecs.spec import CodecSpec, spec_of
from milan_pipeline.core.schema import DocumentError, conforming, parsed
from milan_pipeline.errors import ConfigError, DataError, MissingDataError
from milan_pipeline.provenance.identity import Identity, content_hash, require_same, stated_identity
from milan_pipeline.shards.manifest import MANIFEST_NAME

FORMAT_VERSION = 1
OUTER_SHARD = 256
"""Samples whose codes make one object."""
ANOTHER_STORE = "give another --out for these targets, or --overwrite to extract them anew"
SMALL_CHUNK_BYTES = 16 << 20
"""Up to so much, each of a unit's other arrays is one object."""
TEXT_BYTES = 256
"""What a text in such an array is taken for: few keys are longer."""


@dataclasses.dataclass(kw_only=True)
class UnitBlock:
    """Some samples of a unit, in order: what extraction hands to the writer.

    Shapes and types: key n str; codes (n, N, C); scale (n, N) float16 or None; prior (n, L) of the
    codec's type for priors; box (n, 4) float32: top, left, height, width in source pixels; flip
    (n,) bool; size (n, 2) int32: source height, width; digest (n,) uint64.
    """

    key: list[str]
    codes: NDArray[Any]
    scale: NDArray[np.float16] | None
    prior: NDArray[Any]
    box: NDArray[np.float32]
    flip: NDArray[np.bool_]
    size: NDArray[np.int32]
    digest: NDArray[np.uint64]


def require_place(out: str) -> None:
    """Refuse, before any work is done, a place where no target store can be.

    Raises:
        ConfigError: shards lie there.
        StorageError: it cannot be written to.
    """
    storage.require_writable(out)
    if storage.exists(storage.join(out, MANIFEST_NAME)):
        raise ConfigError(
            f"--out {out} is a folder of shards, as it has {MANIFEST_NAME}; give another --out for "
            "the targets"
        )


def create_root(
    url: str, identity: Identity, *, overwrite: bool = False, remedy: str = ANOTHER_STORE
) -> None:
    """Create the store's root if it is absent; then check that it holds these targets.

    Any number of processes may come here at once: those with equal targets write equal bytes.
    Others are refused here or, if they both were in the same moment, when they come here again.

    Args:
        url: the store.
        identity: what its targets are.
        overwrite: replace another identity; units that were made under it become undone.
        remedy: of a store that holds others.

    Raises:
        MismatchError: the store holds targets of another identity; each field is named.
    """
    if storage.exists(storage.join(url, "zarr.json")) and not overwrite:
        require_same(read_identity(url), identity, what=url, remedy=remedy)
        return
    storage.put_bytes(storage.join(url, "zarr.json"), root_bytes(identity))
    require_same(read_identity(url), identity, what=url, remedy=remedy)


def root_bytes(identity: Identity) -> bytes:
    """Return the root's `zarr.json`."""
    return group_bytes(
        {
            "format_version": FORMAT_VERSION,
            "identity": identity,
            "identity_hash": content_hash(identity),
        }
    )


class _Root(TypedDict):
    attributes: dict[str, Any]


class _Versioned(TypedDict):
    format_version: Any


def read_identity(url: str) -> Identity:
    """Read what a store's targets are.

    Raises:
        MissingDataError: there is no store.
        DataError: it is no target store, of another format version, of a codec that is newer than
            this program, or damaged.
    """
    try:
        root = parsed(storage.read_bytes(storage.join(url, "zarr.json")), _Root)
        attributes = root["attributes"]
        version = conforming(attributes, _Versioned)["format_version"]
    except MissingDataError:
        remedy = "`milan-pipeline extract-targets` makes one"
        raise MissingDataError(f"{url} holds no target store; {remedy}") from None
    except DocumentError as error:
        raise DataError(f"{url} is no target store ({error}); extract the targets again") from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{url} has format version {version!r}, this program reads {FORMAT_VERSION}; use the "
            "version that wrote it"
        )
    identity = stated_identity(attributes, what=storage.join(url, "zarr.json"))
    try:
        spec_of(identity["codec"])
    except DataError as error:
        raise DataError(f"{url}: {error}") from error
    return identity


def create_codes(
    group: zarr.Group, rows: int, shape: tuple[int, int], dtype: Any
) -> zarr.Array[Any]:
    """Create a unit's codes, of `rows` samples of (N, C): a chunk each, in outer shards."""
    return group.create_array(
        "codes",
        shape=(rows, *shape),
        chunks=(1, *shape),
        shards=(min(OUTER_SHARD, max(1, rows)), *shape),
        dtype=dtype,
        compressors=[Crc32cCodec()],
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def create_small_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any
) -> zarr.Array[Any]:
    """Create one of a unit's other arrays, of `shape[0]` samples, in as few chunks as may be."""
    row_bytes = TEXT_BYTES if dtype is str else math.prod(shape[1:]) * np.dtype(dtype).itemsize
    rows = min(shape[0], SMALL_CHUNK_BYTES // row_bytes)
    return group.create_array(
        name,
        shape=shape,
        chunks=(max(1, rows), *shape[1:]),
        dtype=dtype,
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},
    )


def empty_block(codec: CodecSpec, shape: tuple[int, int]) -> UnitBlock:
    """Return no samples of (N, C) codes: what a unit's arrays are, but for their number of rows."""
    tokens, _ = shape
    return UnitBlock(
        key=[],
        codes=np.zeros((0, *shape), codec.dtype),
        scale=np.zeros((0, tokens), np.float16) if codec.has_scale else None,
        prior=np.zeros((0, tokens - 1), codec.prior_dtype),
        box=np.zeros((0, 4), np.float32),
        flip=np.zeros(0, np.bool_),
        size=np.zeros((0, 2), np.int32),
        digest=np.zeros(0, np.uint64),
    )


def group_bytes(attributes: dict[str, Any]) -> bytes:
    """Return the `zarr.json` of a group."""
    memory: dict[str, Any] = {}
    zarr.create_group(MemoryStore(memory), zarr_format=3, attributes=attributes)
    data: bytes = memory["zarr.json"].to_bytes()
    return data
