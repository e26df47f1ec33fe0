"""What the files of one view take with each codec: every byte of store or shards, nothing written.

But for stages' records, and for what ledgers of skipped images take.
"""

import dataclasses
import functools
from collections.abc import Sequence

import safetensors.numpy

from milan_pipeline.codec_files import store_codec_objects
from milan_pipeline.codecs import Codec
from milan_pipeline.codecs.component_codec import ComponentCodec
from milan_pipeline.dataset_size import key_bytes
from milan_pipeline.identity import Identity
from milan_pipeline.manifest import index_table
from milan_pipeline.shard_size import ShardSize
from milan_pipeline.store_size import KeyBytes, StoreSize
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import Mark, Unit


@dataclasses.dataclass(frozen=True)
class FileBytes:
    """Counts the files that some units' targets would take with other codecs.

    Attributes:
        url: the store.
        identity: of the store.
        units: finished units of one view, with their marks.
    """

    url: str
    identity: Identity
    units: Sequence[tuple[Unit, Mark]]

    def shards(self, codec: Codec) -> int:
        """Count the bytes of target shards: tars, indices, manifest, and the codec's file."""
        size = ShardSize(self._identity_with(codec))
        own = isinstance(codec, ComponentCodec) and len(safetensors.numpy.save(dict(codec.arrays)))
        return size.units(self._sized) + size.manifest(self._sized) + own

    def store(self, codec: Codec) -> int:
        """Count the bytes of a target store: units, marks, groups, and the codec's arrays."""
        size = StoreSize(self._identity_with(codec))
        objects = store_codec_objects(codec.arrays) if isinstance(codec, ComponentCodec) else {}
        return size.units(self._sized) + size.groups(views=1) + sum(map(len, objects.values()))

    def _identity_with(self, codec: Codec) -> Identity:
        """As extraction would write it with the codec, whatever the store was made from."""
        parts = {name: self.identity[name] for name in self.identity if name != "transcoded_from"}
        return parts | {"codec": codec.parameters()}

    @functools.cached_property
    def _sized(self) -> list[tuple[Unit, KeyBytes]]:
        """Each unit as if of a shard of just the images that have targets, and its keys."""
        return [
            (_without_skipped(unit, mark), _keys_of(self.url, unit, mark))
            for unit, mark in self.units
        ]


def _without_skipped(unit: Unit, mark: Mark) -> Unit:
    return dataclasses.replace(unit, shard=dataclasses.replace(unit.shard, samples=mark.n))


def _keys_of(url: str, unit: Unit, mark: Mark) -> KeyBytes:
    keys = open_unit(url, unit, mark)["key"][:]  # type: ignore[index]
    return key_bytes(index_table([(str(key), 0, 0, 0) for key in keys]))  # type: ignore[union-attr]
