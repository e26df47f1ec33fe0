"""The Zarr v3 layout of a target store: its root and the arrays of one unit.

`writer.py` writes a unit, `reader.py` reads one.

Legend: n samples of the unit, N = 1 + L tokens, L patches, C code width.
"""

import contextlib
import dataclasses
import math
from typing import Any, Literal, TypedDict

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from milan_pipeline import storage
from milan_pipeline.codecs.registry import CodecSpec, spec_of
from milan_pipeline.core.schema import DocumentError, conforming, parsed
from milan_pipeline.errors import ConfigError, DataError, MissingDataError
from milan_pipeline.images.views import PLACE_NUMBERS
from milan_pipeline.provenance.identity import Identity, content_hash, require_same, stated_identity
from milan_pipeline.shards.manifest import MANIFEST_NAME
from milan_pipeline.targets.units import view_name

ZARR_JSON = "zarr.json"
"""What Zarr writes for each group and array."""
STORE_RECORDS = ("extract-targets.json", "transcode.json")
"""Of the stages that write a store; only its root has one."""
FORMAT_VERSION = 1
OUTER_SHARD = 256
"""Number of samples whose codes are stored in one object."""
ANOTHER_STORE = "give another --out for these targets, or --overwrite to extract them anew"
SMALL_CHUNK_BYTES = 16 << 20
"""Each of a unit's other arrays is one object if it is not larger than this."""
TEXT_BYTES = 256
"""Assumed size of a text in such an array; few keys are longer."""


@dataclasses.dataclass(kw_only=True)
class UnitBlock:
    """Some samples of a unit, in order, as the writer takes them.

    Shapes and types: key n str; codes (n, N, C); scale (n, N) float16 or None; prior (n, L) of the
    codec's type for priors; box (n, 4) float32: top, left, height, width in source pixels, with
    colours (n, 11), see `colour_changes.ColourChange`; flip (n,) bool; size (n, 2) int32: source
    height, width; digest (n,) uint64.
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
    """Refuse a place that cannot hold a target store, before any work is done.

    Raises:
        ConfigError: the place holds shards.
        StorageError: the place cannot be written to.
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
    """Create the store's root if there is none, then check that it holds these targets.

    Any number of processes may call this at the same time. Processes with the same identity write
    the same bytes. A process with another identity is refused here, or at its next call if both
    wrote at the same moment.

    Args:
        url: the store.
        identity: what its targets are.
        overwrite: replace another identity; units of that identity then count as not done.
        remedy: what the error advises if the store holds other targets.

    Raises:
        MismatchError: the store holds targets of another identity; the message names each field.
    """
    if not overwrite and holds_store(url):
        require_same(read_identity(url), identity, what=url, remedy=remedy)
        return
    storage.put_bytes(root_url(url), root_bytes(identity))
    require_same(read_identity(url), identity, what=url, remedy=remedy)


def root_url(url: str) -> str:
    """Return the URL of a store's root."""
    return storage.join(url, ZARR_JSON)


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


class _Group(TypedDict):
    zarr_format: Literal[3]
    node_type: Literal["group"]


class _Versioned(TypedDict):
    format_version: Any


def holds_store(url: str) -> bool:
    """Tell whether there is a target store, or another Zarr group, at a URL."""
    return storage.exists(root_url(url))


def existing_identity(url: str) -> Identity | None:
    """Return what a store's targets are, as `read_identity` does; None where there is no store."""
    return read_identity(url) if holds_store(url) else None


def read_identity(url: str) -> Identity:
    """Read the identity of a store's targets.

    Raises:
        MissingDataError: there is no store.
        DataError: it is not a target store, it is damaged, or its format or codec is of a version
            that this program does not read.
    """
    try:
        root = parsed(storage.read_bytes(root_url(url)), _Root)
        attributes = root["attributes"]
        version = conforming(attributes, _Versioned)["format_version"]
    except MissingDataError:
        makes = "`milan-pipeline extract-targets` makes one"
        if storage.exists(storage.join(url, MANIFEST_NAME)):
            makes = "it has shards: give the store, which `milan-pipeline extract-targets` wrote"
        given = storage.give_enclosing(url, *STORE_RECORDS)
        raise MissingDataError(f"{url} holds no target store; {given or makes}") from None
    except DocumentError as error:
        given = storage.give_enclosing(url, *STORE_RECORDS)
        raise DataError(
            f"{url} is no target store ({error}); {given or 'extract the targets again'}"
        ) from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{url} has format version {version!r}, this program reads {FORMAT_VERSION}; use the "
            "version that wrote it"
        )
    identity = stated_identity(attributes, what=root_url(url))
    try:
        spec_of(identity["codec"])
    except DataError as error:
        raise DataError(f"{url}: {error}") from error
    return identity


def code_shape(identity: Identity) -> tuple[int, int]:
    """Return (N, C) of the codes of one sample of an identity's targets; (1, C) of an image's."""
    height, width = identity["teacher"]["grid"]
    spec, tokens = spec_of(identity["codec"]), 1 + height * width
    return spec.code_shape(tokens, identity["teacher"]["width"])


def create_codes(
    group: zarr.Group, rows: int, shape: tuple[int, int], dtype: Any
) -> zarr.Array[Any]:
    """Create the array of a unit's codes: `rows` samples of (N, C), each a chunk, in shards."""
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
    """Create one of a unit's other arrays, of `shape[0]` samples, in as few chunks as possible."""
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


def empty_block(
    codec: CodecSpec,
    tokens: int,
    shape: tuple[int, int],
    box_numbers: int = PLACE_NUMBERS,
) -> UnitBlock:
    """Return a block of no samples: its arrays have the types and row shapes of a unit's arrays."""
    return UnitBlock(
        key=[],
        codes=np.zeros((0, *shape), codec.dtype),
        scale=np.zeros((0, tokens), np.float16) if codec.has_scale else None,
        prior=np.zeros((0, tokens - 1), codec.prior_dtype),
        box=np.zeros((0, box_numbers), np.float32),
        flip=np.zeros(0, np.bool_),
        size=np.zeros((0, 2), np.int32),
        digest=np.zeros(0, np.uint64),
    )


def put_view_group(url: str, view: int) -> None:
    """Write the group of a view, unless it is there.

    It is the same for all units of a view, and some object stores take one write a second of a
    name.
    """
    place = storage.join(url, view_name(view), ZARR_JSON)
    with contextlib.suppress(MissingDataError):
        if is_group(storage.read_bytes(place)):
            return
    storage.put_bytes(place, group_bytes({}))


def group_bytes(attributes: dict[str, Any]) -> bytes:
    """Return the `zarr.json` of a group."""
    memory: dict[str, Any] = {}
    zarr.create_group(MemoryStore(memory), zarr_format=3, attributes=attributes)
    data: bytes = memory[ZARR_JSON].to_bytes()
    return data


def is_group(data: bytes) -> bool:
    """Tell whether a `zarr.json` is that of a group; versions of zarr write it differently."""
    try:
        parsed(data, _Group)
    except DocumentError:
        return False
    return True


def record_dtype(
    codec: CodecSpec, patches: int, width: int, box_numbers: int = PLACE_NUMBERS
) -> np.dtype[Any]:
    """Return a record's type: box (4,), flip, digest, prior (L,), any scale (N,), codes (N, C).

    Args:
        codec: how targets are stored.
        patches: L; N is 1 + L.
        width: D, from which C follows.
        box_numbers: how many numbers a box has; see `views.view_numbers`.
    """
    tokens = 1 + patches
    fields: list[Any] = [
        ("box", "<f4", (box_numbers,)),
        ("flip", "?"),
        ("digest", "<u8"),
        ("prior", codec.prior_dtype, (patches,)),
    ]
    if codec.has_scale:
        fields.append(("scale", "<f2", (tokens,)))
    fields.append(("codes", codec.dtype, codec.code_shape(tokens, width)))
    return np.dtype(fields)
