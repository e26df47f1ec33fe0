"""Where the arrays of a fitted codec are kept: in a store as Zarr arrays, beside shards as a file.

A store's `codec/` group is read whole and checked against the identity's hash, so that a missing or
damaged object is an error, whatever zarr makes of it.

The targets that a codec is fitted to: those of the first images by the hash of their keys.

So the sample is the same for extraction and for transcoding, on any machine, whatever the order of
the work; and images that are measured can be others.

Legend: n samples, N tokens, T tokens of the sample, D target width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
import xxhash
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from milan_pipeline import storage
from milan_pipeline.codecs.components import DTYPES, Arrays, ComponentCodec, array_shapes
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.registry import codec_of
from milan_pipeline.codecs.spec import CodecSpec, spec_of
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.targets.layout import create_small_array
from milan_pipeline.targets.reader import open_unit, read_codes
from milan_pipeline.targets.units import Mark, Unit

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
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
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
    except (safetensors.SafetensorError, ValueError, TypeError, LookupError) as error:
        raise DataError(f"{place} is damaged ({error}); {SHARDS_REMEDY}") from error
    return _named(place, identity, arrays)


def _named(place: str, identity: Identity, arrays: Arrays) -> Codec:
    """Rebuild a codec; say where arrays are from that are not the identity's."""
    try:
        return codec_of(identity["codec"], arrays)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise DataError(f"{place} holds no codec ({error!r}); copy or make it again") from error


def _most_arrays(spec: CodecSpec, width: int) -> dict[str, NDArray[Any]]:
    shapes = array_shapes(spec, width)
    return {name: np.zeros(shape, DTYPES[name]) for name, shape in shapes.items()}


def _parts(name: str) -> tuple[str, str]:
    """Name an array's two objects; each is one chunk."""
    is_vector = name in {"offset", "bits"}
    return "zarr.json", "c/0" if is_vector else "c/0/0"


SAMPLE_IMAGES = 1024
SAMPLE_TOKENS = 65536
"""So many for each of 256 centres of k-means as it needs, and fitted in a minute or two."""


def rows_by_hash(
    keys: Mapping[str, Sequence[str]], first: int, count: int = SAMPLE_IMAGES
) -> dict[str, list[int]]:
    """Choose images in the order of the hashes of their (shard, key).

    Args:
        keys: of the samples of each image shard, by the shard's stem.
        first: how many to pass over.
        count: how many to take, or all that are left.

    Returns:
        For each shard of which any is chosen, its rows, ascending.
    """
    order = sorted(
        (xxhash.xxh3_64_intdigest(f"{stem}/{key}".encode()), stem, row)
        for stem, own in keys.items()
        for row, key in enumerate(own)
    )
    chosen: dict[str, list[int]] = {}
    for _, stem, row in order[first : first + count]:
        chosen.setdefault(stem, []).append(row)
    return {stem: sorted(rows) for stem, rows in sorted(chosen.items())}


def thinned(tokens_nND: torch.Tensor) -> torch.Tensor:
    """Return at most `SAMPLE_TOKENS` of all tokens, (T, D), drawn by a fixed seed, in order."""
    tokens_TD = tokens_nND.flatten(0, 1)
    if len(tokens_TD) <= SAMPLE_TOKENS:
        return tokens_TD
    random = np.random.Generator(np.random.PCG64(0))
    drawn = np.sort(random.choice(len(tokens_TD), SAMPLE_TOKENS, replace=False))
    return tokens_TD[torch.from_numpy(drawn)]


def stored_sample(
    url: str,
    units: Sequence[tuple[Unit, Mark]],
    codec: Codec,
    *,
    first: int = 0,
    count: int = SAMPLE_IMAGES,
) -> torch.Tensor:
    """Decode the targets (n, N, D), float32, of some images of a store, chosen by hash.

    Args:
        url: the store.
        units: finished units of one view, with their marks.
        codec: of the store.
        first: see `rows_by_hash`.
        count: likewise.

    Raises:
        DataError: an object of the store is missing or damaged.
        StorageError: the store cannot be read.
    """
    groups = {unit.shard.stem: open_unit(url, unit, mark) for unit, mark in units}
    keys = {stem: [str(key) for key in group["key"][:]] for stem, group in groups.items()}  # type: ignore[index, union-attr]
    parts = []
    for stem, rows in rows_by_hash(keys, first, count).items():
        arrays = {name: groups[stem][name] for name in ("codes", "scale") if name in groups[stem]}
        whole = slice(rows[0], rows[-1] + 1)
        codes_nNC, scale_nN = read_codes(arrays, whole)  # type: ignore[arg-type]
        taken = torch.tensor(rows) - rows[0]
        scale = None if scale_nN is None else scale_nN[taken]
        parts.append(codec.decode(codes_nNC[taken], scale))
    return torch.cat(parts)
