"""Where the arrays of a fitted codec are kept: in a store as Zarr arrays, beside shards as a file.

A store's `codec/` group is read whole and checked against the identity's hash, so that a missing or
damaged object is an error, whatever zarr makes of it.
"""

from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from milan_pipeline import storage
from milan_pipeline.codecs import Codec, CodecSpec, codec_of, spec_of
from milan_pipeline.codecs.component_codec import DTYPES, Arrays, ComponentCodec, array_shapes
from milan_pipeline.documents import MISSHAPEN
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.identity import Identity
from milan_pipeline.target_store import create_small_array

CODEC_FOLDER = "codec"
CODEC_FILE = "codec.safetensors"
STORE_REMEDY = "copy the store again, or make it again with --overwrite"
SHARDS_REMEDY = "copy the shards again, or pack them again with --overwrite"


def write_store_codec(url: str, codec: Codec) -> None:
    """Write a fitted codec's arrays into a store, before its root names their hash.

    Raises:
        StorageError: the store cannot be written.
    """
    if isinstance(codec, ComponentCodec):
        for path, data in store_codec_objects(codec.arrays).items():
            storage.put_bytes(storage.join(url, CODEC_FOLDER, path), data)


def store_codec_objects(arrays: Arrays) -> dict[str, bytes]:
    """Return the objects of a `codec/` group by their paths in it."""
    memory: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    for name, dtype in DTYPES.items():
        values = np.asarray(arrays[name], dtype)
        create_small_array(group, name, values.shape, values.dtype)[...] = values
    return {path: data.to_bytes() for path, data in sorted(memory.items())}


def most_store_codec_bytes(spec: CodecSpec, width: int) -> int:
    """Return what the `codec/` group takes at most, for targets of width D; 0 where it has none."""
    if not spec.needs_fit:
        return 0
    return sum(map(len, store_codec_objects(_most_arrays(spec, width)).values()))


def read_store_codec(url: str, identity: Identity) -> Codec:
    """Return the codec of a store.

    Raises:
        DataError: its arrays are missing or damaged, or the codec is of a newer version.
        StorageError: the store cannot be read.
    """
    if not spec_of(identity["codec"]).needs_fit:
        return codec_of(identity["codec"])
    buffer = default_buffer_prototype().buffer
    memory: dict[str, Any] = {}
    for path in ["zarr.json", *(f"{name}/{part}" for name in DTYPES for part in _parts(name))]:
        place = storage.join(url, CODEC_FOLDER, path)
        try:
            memory[path] = buffer.from_bytes(storage.read_bytes(place))
        except MissingDataError as error:
            raise DataError(
                f"{place} is missing, without which no target can be decoded; {STORE_REMEDY}"
            ) from error
    place, arrays = storage.join(url, CODEC_FOLDER), {}
    try:
        group = zarr.open_group(MemoryStore(memory), mode="r", zarr_format=3)
        for name in DTYPES:
            place = storage.join(url, CODEC_FOLDER, name)
            arrays[name] = np.asarray(group[name][...])  # type: ignore[index]
    except (*MISSHAPEN, RuntimeError) as error:
        raise DataError(f"{place} is damaged ({error}); {STORE_REMEDY}") from error
    return _named(storage.join(url, CODEC_FOLDER), identity, arrays)


def write_shards_codec(folder: str, codec: Codec) -> None:
    """Write a fitted codec's arrays beside target shards, before their manifest names the hash.

    Raises:
        StorageError: the place cannot be written.
    """
    if isinstance(codec, ComponentCodec):
        data = safetensors.numpy.save(dict(codec.arrays))
        storage.put_bytes(storage.join(folder, CODEC_FILE), data)


def most_shards_codec_bytes(spec: CodecSpec, width: int) -> int:
    """Return what the file takes at most, for targets of width D; 0 where there is none."""
    return len(safetensors.numpy.save(_most_arrays(spec, width))) if spec.needs_fit else 0


def read_shards_codec(folder: str, identity: Identity) -> Codec:
    """Return the codec of target shards.

    Raises:
        DataError: its file is missing or damaged, or the codec is of a newer version.
        StorageError: it cannot be read.
    """
    if not spec_of(identity["codec"]).needs_fit:
        return codec_of(identity["codec"])
    place = storage.join(folder, CODEC_FILE)
    try:
        arrays = safetensors.numpy.load(storage.read_bytes(place))
    except MissingDataError as error:
        raise DataError(
            f"{place} is missing, without which no target can be decoded; {SHARDS_REMEDY}"
        ) from error
    except (safetensors.SafetensorError, *MISSHAPEN) as error:
        raise DataError(f"{place} is damaged ({error}); {SHARDS_REMEDY}") from error
    return _named(place, identity, arrays)


def _named(place: str, identity: Identity, arrays: Arrays) -> Codec:
    """Rebuild a codec; say where arrays are from that are not the identity's."""
    try:
        return codec_of(identity["codec"], arrays)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except MISSHAPEN as error:
        raise DataError(f"{place} holds no codec ({error!r}); copy or make it again") from error


def _most_arrays(spec: CodecSpec, width: int) -> dict[str, NDArray[Any]]:
    shapes = array_shapes(spec, width)
    return {name: np.zeros(shape, DTYPES[name]) for name, shape in shapes.items()}


def _parts(name: str) -> tuple[str, str]:
    """Name an array's two objects; each is one chunk."""
    is_vector = name in {"offset", "bits"}
    return "zarr.json", "c/0" if is_vector else "c/0/0"
