"""Pairs as samples that an order runs over: the bytes of image and target, verified."""

import dataclasses
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.examples import IMAGE_MEMBER
from milan_pipeline.pairs import PairTable, ShardPairs
from milan_pipeline.place_reader import Read, all_local, read_places
from milan_pipeline.sample_table import Place
from milan_pipeline.shard_cache import CacheConfig
from milan_pipeline.target_records import TARGET_EXTENSION


class RawPair(NamedTuple):
    """What lies in the shards, verified."""

    place: Place
    image: bytes
    target: bytes


def read_pairs(
    pairs: PairTable, places: Iterator[Place], cache: CacheConfig | None = None
) -> Generator[RawPair, None, None]:
    """Yield the pairs at some places, in order; see `place_reader.read_places`."""

    def fetch(place: Place, read: Read) -> RawPair:
        shard: ShardPairs = pairs.views[place.view][place.shard]
        image = read(shard.image_file, *shard.image_rows[place.row].tolist())
        target = read(shard.target_file, *shard.target_rows[place.row].tolist())
        return RawPair(place, image, target)

    return read_places(places, fetch, local=all_local(_urls(pairs)), cache=cache)


@dataclasses.dataclass(frozen=True)
class PairSamples:
    """A table of pairs as `sample_table.SampleTable`."""

    pairs: PairTable

    @property
    def cycle(self) -> int:
        """How many views there are."""
        return len(self.pairs.views)

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of pairs in each shard of a view."""
        return self.pairs.counts(view)

    def read(
        self, places: Iterator[Place], cache: CacheConfig | None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the image, its digest and the target of the pairs at some places."""
        for place, image, target in read_pairs(self.pairs, places, cache):
            shard = self.pairs.views[place.view][place.shard]
            yield {
                "__key__": shard.keys[place.row].decode(),
                "__url__": shard.image_url,
                "epoch": place.epoch,
                IMAGE_MEMBER: image,
                "digest": int(shard.image_rows["xxh3"][place.row]),
                TARGET_EXTENSION: target,
            }


def _urls(pairs: PairTable) -> Iterator[str]:
    for shards in pairs.views:
        for shard in shards:
            yield from (shard.image_url, shard.target_url)
