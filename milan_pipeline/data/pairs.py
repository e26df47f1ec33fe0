"""Read pairs: an image and its target of each teacher, all verified."""

import dataclasses
import functools
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.data.pair_table import PairTable
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.random_access import IMAGE_MEMBER, Place, Read, read_places
from milan_pipeline.targets.shard_records import target_members


class RawPair(NamedTuple):
    """The bytes of a pair, verified.

    Attributes:
        place: of the pair.
        key: of the sample.
        url: of the image shard.
        digest: xxh3-64 of the image's bytes.
        image: its bytes.
        targets: the bytes of each teacher's record.
    """

    place: Place
    key: str
    url: str
    digest: int
    image: bytes
    targets: tuple[bytes, ...]


def read_pairs(
    pairs: PairTable, places: Iterator[Place], cache: CacheConfig | None = None
) -> Generator[RawPair, None, None]:
    """Yield the pairs at some places, in order; see `random_access.read_places`.

    Raises:
        MissingDataError: other samples of a shard are missing than its manifest lets expect.
    """
    fetch = functools.partial(read_pair, pairs)
    return read_places(places, fetch, local=pairs.is_local, cache=cache)


def read_pair(pairs: PairTable, place: Place, read: Read) -> RawPair:
    """Return the pair at a place, by a function that reads from shards.

    Raises:
        MissingDataError: other samples of its shard are missing than the manifest lets expect.
    """
    image_file, target_files, shard = pairs.recent[place.view, place.shard]
    at = shard.image_rows[place.row].tolist()
    return RawPair(
        place=place,
        key=shard.keys[place.row].decode(),
        url=image_file.url,
        digest=at[2],
        image=read(image_file, *at),
        targets=tuple(
            read(file, *rows[place.row].tolist())
            for file, rows in zip(target_files, shard.target_rows, strict=True)
        ),
    )


@dataclasses.dataclass(frozen=True)
class PairSamples:
    """A table of pairs as `random_access.SampleTable`."""

    pairs: PairTable

    @property
    def cycle(self) -> int:
        """The number of views."""
        return len(self.pairs.views)

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of pairs in each shard of a view."""
        return self.pairs.counts(view)

    def read(
        self, places: Iterator[Place], cache: CacheConfig | None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the image, its digest and the targets of the pairs at some places."""
        for pair in read_pairs(self.pairs, places, cache):
            yield {
                "__key__": pair.key,
                "__url__": pair.url,
                "epoch": pair.place.epoch,
                IMAGE_MEMBER: pair.image,
                "digest": pair.digest,
            } | dict(zip(target_members(), pair.targets, strict=False))
