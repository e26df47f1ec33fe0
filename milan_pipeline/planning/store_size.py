"""Count the bytes of a target store before anything is written.

Every file is counted except for the stage's record. The arrays are created in memory, without
samples, by the functions that the writer calls, so that chunks, checksums and metadata are those of
the store.

Legend: N = 1 + L tokens, L patches, C code width.
"""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import zarr
from zarr.storage import MemoryStore

from milan_pipeline.codecs.registry import CodecSpec, spec_of
from milan_pipeline.images.views import view_numbers
from milan_pipeline.provenance.identity import TRANSCODED_FROM, Identity, content_hash
from milan_pipeline.targets.codec_bytes import most_store_codec_bytes
from milan_pipeline.targets.layout import (
    code_shape,
    create_codes,
    create_small_array,
    empty_block,
    group_bytes,
    root_bytes,
)
from milan_pipeline.targets.units import Mark, Unit

CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16  # an outer shard lists offset and length of each of its chunks
TEXT_LENGTH_BYTES = 4  # before each text of a chunk, and once for the number of texts
HASH_LETTERS = 32  # an object's xxh3-128, in a mark
SHA256_LETTERS = 64  # of the unit that another was transcoded from, in a mark
FILES_OF_STORE = 6  # with its own folder, and those of marks and of progress reports
FILES_OF_VIEW = 3


class KeyBytes(NamedTuple):
    """Bytes of the keys of one image shard as UTF-8.

    Attributes:
        total: bytes of all keys together.
        longest: bytes of the longest key.
        tar_extra: bytes of tar headers beyond 512 a sample, if names are long.
        shared: bytes of headers and lists of keys in a tar whose samples share members.
    """

    total: int
    longest: int
    tar_extra: int = 0
    shared: int = 0


class _Layout(NamedTuple):
    """Bytes of a unit's objects without the text of its keys, and the objects' paths."""

    chunk_bytes: int
    metadata_bytes: int
    paths: list[str]


class StoreSize:
    """Counts the bytes of the targets of one identity, if no image is skipped."""

    def __init__(self, identity: Identity) -> None:
        """Take an identity; a hash that is not known yet may be any text of the same length."""
        self._identity = identity
        self._codec = spec_of(identity["codec"])
        self._shape = code_shape(identity)
        height, width = identity["teacher"]["grid"]
        self._tokens, self._width = 1 + height * width, identity["teacher"]["width"]
        self._known: dict[tuple[object, ...], int] = {}
        self._objects: dict[int, int] = {}

    def unit(self, unit: Unit, keys: KeyBytes) -> int:
        """Count the bytes of one unit's objects and of its mark."""
        shard = unit.shard
        alike = shard.samples, len(shard.name), len(shard.sha256), unit.view
        if alike not in self._known:  # most units are alike
            self._known[alike] = self._without_keys(unit)
        return self._known[alike] + keys.total

    def units(self, units: Iterable[tuple[Unit, KeyBytes]]) -> int:
        """Count the bytes of some units."""
        return sum(self.unit(unit, keys) for unit, keys in units)

    def files(self, units: Iterable[Unit]) -> int:
        """Count the files and folders of some units, their marks and all around them included."""
        alike = Counter((unit.view, unit.shard.samples) for unit in units)
        views = len({view for view, _ in alike})
        inside = sum(count * self._files(samples) for (_, samples), count in alike.items())
        return inside + (FILES_OF_STORE + FILES_OF_VIEW * views if views else 0)

    def objects(self, unit: Unit) -> int:
        """Count the objects of a unit, its mark apart."""
        samples = unit.shard.samples
        if samples not in self._objects:  # most units are alike
            self._objects[samples] = len(self._layout(samples).paths)
        return self._objects[samples]

    def _files(self, samples: int) -> int:
        paths = [PurePosixPath(path) for path in self._layout(samples).paths]
        folders = {folder for path in paths for folder in path.parents}  # the unit's own, too
        return len(paths) + len(folders) + 1

    def groups(self, views: int) -> int:
        """Count the bytes of the groups around the units of so many views.

        The arrays of a codec that needs fitting count with the most components.
        """
        arrays = most_store_codec_bytes(self._codec, self._tokens, self._width)
        return len(root_bytes(self._identity)) + arrays + views * len(group_bytes({}))

    def _layout(self, samples: int) -> _Layout:
        numbers = view_numbers(self._identity["view_policy"])
        return _layout_of(self._codec, self._tokens, self._shape, samples, numbers)

    def _without_keys(self, unit: Unit) -> int:
        layout = self._layout(unit.shard.samples)
        mark = Mark(
            shard=unit.shard.name,
            sha256=unit.shard.sha256,
            identity_hash=content_hash(self._identity),
            view=unit.view,
            n=unit.shard.samples,
            skipped=[],
            objects=dict.fromkeys(layout.paths, "0" * HASH_LETTERS),
            source_unit="0" * SHA256_LETTERS if TRANSCODED_FROM in self._identity else None,
        )
        return layout.chunk_bytes + layout.metadata_bytes + len(mark.to_bytes())


def _layout_of(
    codec: CodecSpec, tokens: int, shape: tuple[int, int], samples: int, box_numbers: int
) -> _Layout:
    """Create a unit's arrays in memory and compute the bytes of their chunks."""
    memory: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    codes = create_codes(group, samples, shape, codec.dtype)
    outer = (codes.shards or codes.chunks)[0]
    pieces = -(-samples // outer)
    chunk = math.prod(codes.chunks) * codes.dtype.itemsize + CRC_BYTES
    size = samples * chunk + pieces * (outer * INDEX_ENTRY_BYTES + CRC_BYTES)
    paths = [f"codes/c/{piece}/0/0" for piece in range(pieces)]
    for name, values in vars(empty_block(codec, tokens, shape, box_numbers)).items():
        if name == "codes" or values is None:
            continue
        is_text = name == "key"
        inner = () if is_text else values.shape[1:]
        dtype = str if is_text else values.dtype
        array = create_small_array(group, name, (samples, *inner), dtype)
        pieces = -(-samples // array.chunks[0])
        row = TEXT_LENGTH_BYTES if is_text else math.prod(inner) * values.dtype.itemsize
        head = CRC_BYTES + (TEXT_LENGTH_BYTES if is_text else 0)
        size += pieces * (array.chunks[0] * row + head)
        paths += [f"{name}/c/{piece}" + "/0" * len(inner) for piece in range(pieces)]
    metadata = {path: len(data.to_bytes()) for path, data in memory.items()}
    return _Layout(size, sum(metadata.values()), [*paths, *metadata])
