"""The arrays of a fitted codec on disk.

A store keeps the arrays as a Zarr group, `codec/`; target shards keep them in a file beside them.
The group is read whole and checked against the identity's hash, so that a missing or damaged object
is an error and not a chunk of zeros.
"""

from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from milan_pipeline import storage
from milan_pipeline.codecs.build import codec_of
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.joint import JointCodec
from milan_pipeline.codecs.record_arrays import DIMENSIONS, DTYPES, Arrays
from milan_pipeline.codecs.registry import spec_of
from milan_pipeline.core.file_kinds import HEAD, explained
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.targets.codec_bytes import store_codec_objects
from milan_pipeline.targets.layout import ZARR_JSON

CODEC_FOLDER = "codec"
CODEC_FILE = "codec.safetensors"
STORE_REMEDY = "copy the store again, or make it again with --overwrite"
SHARDS_REMEDY = "copy the shards again, or pack them again with --overwrite"


def write_store_codec(url: str, codec: Codec) -> None:
    """Write a fitted codec's arrays into a store; must come before the root that names their hash.

    Raises:
        StorageError: the store cannot be written.
    """
    if isinstance(codec, JointCodec):
        for path, data in store_codec_objects(codec.arrays).items():
            storage.put_bytes(storage.join(url, CODEC_FOLDER, path), data)


def read_store_codec(url: str, identity: Identity) -> Codec:
    """Return the codec of a store.

    Raises:
        DataError: the arrays are missing or damaged, or the codec is of a newer version.
        StorageError: the store cannot be read.
    """
    if not spec_of(identity["codec"]).needs_fit:
        return codec_of(identity["codec"])
    buffer = default_buffer_prototype().buffer
    memory: dict[str, Any] = {}
    for path in [ZARR_JSON, *(f"{name}/{part}" for name in DTYPES for part in _parts(name))]:
        data = _needed(storage.join(url, CODEC_FOLDER, path), STORE_REMEDY)
        memory[path] = buffer.from_bytes(data)
    place, arrays = storage.join(url, CODEC_FOLDER), {}
    try:
        group = zarr.open_group(MemoryStore(memory), mode="r", zarr_format=3)
        for name in DTYPES:
            place = storage.join(url, CODEC_FOLDER, name)
            arrays[name] = np.asarray(group[name][...])  # type: ignore[index]
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise DataError(f"{place} is damaged ({error}); {STORE_REMEDY}") from error
    return _named(storage.join(url, CODEC_FOLDER), identity, arrays)


def write_shards_codec(folder: str, codec: Codec) -> None:
    """Write a fitted codec's arrays beside target shards, before the manifest names their hash.

    Raises:
        StorageError: the folder cannot be written to.
    """
    if isinstance(codec, JointCodec):
        data = safetensors.numpy.save(dict(codec.arrays))
        storage.put_bytes(storage.join(folder, CODEC_FILE), data)


def read_shards_codec(folder: str, identity: Identity) -> Codec:
    """Return the codec of target shards.

    Raises:
        DataError: the file is missing or damaged, or the codec is of a newer version.
        StorageError: the file cannot be read.
    """
    if not spec_of(identity["codec"]).needs_fit:
        return codec_of(identity["codec"])
    place = storage.join(folder, CODEC_FILE)
    data = _needed(place, SHARDS_REMEDY)
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, TypeError, LookupError) as error:
        otherwise = f"is damaged ({error}); {SHARDS_REMEDY}"
        raise DataError(explained(place, data[:HEAD], otherwise)) from error
    return _named(place, identity, arrays)


def _needed(place: str, remedy: str) -> bytes:
    try:
        return storage.read_bytes(place)
    except MissingDataError as error:
        raise DataError(
            f"{place} is missing, without which no target can be decoded; {remedy}"
        ) from error


def _named(place: str, identity: Identity, arrays: Arrays) -> Codec:
    """Rebuild a codec; an error about its arrays names the place that they were read from."""
    try:
        return codec_of(identity["codec"], arrays)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise DataError(f"{place} holds no codec ({error!r}); copy or make it again") from error


def _parts(name: str) -> tuple[str, str]:
    """Return the paths of an array's two objects: its metadata and its only chunk."""
    return ZARR_JSON, "c" + "/0" * DIMENSIONS[name]
