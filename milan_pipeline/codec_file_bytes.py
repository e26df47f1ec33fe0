"""What the files of targets take with each codec: all of store or shards, without writing them.

But for stages' records, and for ledgers of skipped images; a codec's own arrays at their largest.
"""

import dataclasses
import functools
from collections.abc import Sequence

from milan_pipeline.codecs import Codec
from milan_pipeline.dataset_size import stored_units
from milan_pipeline.identity import TRANSCODED_FROM, Identity
from milan_pipeline.shard_size import ShardSize
from milan_pipeline.store_size import KeyBytes, StoreSize
from milan_pipeline.units import Mark, Unit

WORKERS = 2


@dataclasses.dataclass(frozen=True)
class FileBytes:
    """Counts the files that some units' targets would take with other codecs.

    Attributes:
        url: the store.
        identity: of the store.
        units: finished units of the first view, with their marks.
        views: how many are counted, each with the images of the first.
    """

    url: str
    identity: Identity
    units: Sequence[tuple[Unit, Mark]]
    views: int = 1

    def shards(self, codec: Codec) -> int:
        """Count the bytes of target shards: tars, indices, manifest, and the codec's file."""
        size = ShardSize(self._identity_with(codec))
        return size.units(self._sized) + size.manifest(self._sized)

    def store(self, codec: Codec) -> int:
        """Count the bytes of a target store: units, marks, groups, and the codec's arrays."""
        size = StoreSize(self._identity_with(codec))
        return size.units(self._sized) + size.groups(self.views)

    def _identity_with(self, codec: Codec) -> Identity:
        """As extraction would write it with the codec, whatever the store was made from."""
        parts = {name: self.identity[name] for name in self.identity if name != TRANSCODED_FROM}
        return parts | {"codec": codec.parameters()}

    @functools.cached_property
    def _sized(self) -> list[tuple[Unit, KeyBytes]]:
        """The units of every view, as if of shards of just the images that have targets."""
        first = stored_units(self.url, self.units, workers=WORKERS)
        return [
            (Unit(view, unit.shard), keys) for view in range(self.views) for unit, keys in first
        ]
