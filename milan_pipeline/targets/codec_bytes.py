"""The bytes of a fitted codec's arrays, in a store and beside target shards; loads no torch."""

from typing import Any

import numpy as np
import safetensors.numpy
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from milan_pipeline.codecs.record_arrays import DTYPES, Arrays, array_shapes
from milan_pipeline.codecs.registry import CodecSpec


def store_codec_objects(arrays: Arrays) -> dict[str, bytes]:
    """Return the objects of a `codec/` group by their paths in it."""
    memory: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    for name, dtype in DTYPES.items():
        values = np.asarray(arrays[name], dtype)
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,  # one object, whatever its size: a reader knows its path
            dtype=values.dtype,
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        array[...] = values
    return {path: data.to_bytes() for path, data in sorted(memory.items())}


def most_store_codec_bytes(spec: CodecSpec, tokens: int, width: int) -> int:
    """Return the most bytes of a `codec/` group for N tokens of width D; 0 without one."""
    if not spec.needs_fit:
        return 0
    return sum(map(len, store_codec_objects(_most_arrays(spec, tokens, width)).values()))


def most_shards_codec_bytes(spec: CodecSpec, tokens: int, width: int) -> int:
    """Return the most bytes that the file takes for N tokens of width D; 0 without one."""
    return len(safetensors.numpy.save(_most_arrays(spec, tokens, width))) if spec.needs_fit else 0


def _most_arrays(spec: CodecSpec, tokens: int, width: int) -> dict[str, NDArray[Any]]:
    shapes = array_shapes(spec, tokens, width)
    return {name: np.zeros(shape, DTYPES[name]) for name, shape in shapes.items()}
