"""Images without labels or targets as a table that an order runs over."""

import dataclasses
import functools
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.data.recent import RecentTables
from milan_pipeline.shards.cache import CacheConfig, ShardFile
from milan_pipeline.shards.columns import ShardColumns, ends
from milan_pipeline.shards.random_access import IMAGE_MEMBER, Place, Read, read_places


@dataclasses.dataclass(frozen=True)
class ImageTable:
    """The images of all shards of a manifest; see `random_access.SampleTable`.

    Attributes:
        shards: of the manifest; an index is read when an image of its shard is.
        cycle: every epoch has the same images.
    """

    shards: ShardColumns
    cycle: int = 1

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of images in each shard."""
        del view
        return self.shards.samples_n

    def require_indices(self) -> None:
        """Look for all files, and read the first and the last index; raises as `load_index` does.

        See `PairTable.require_indices`.
        """
        self.shards.require_present()
        for number in ends(self.shards.samples_n):
            self.shards.index(number)

    @functools.cached_property
    def recent(self) -> RecentTables[int, tuple[ShardFile, NDArray[np.void]]]:
        """The file and the index of a shard, by its number."""
        return RecentTables(lambda at: (self.shards.file(at), self.shards.index(at)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was read, where the table is sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "recent"}

    @functools.cached_property
    def is_local(self) -> bool:
        """Whether all shards lie on this machine."""
        return self.shards.is_local()

    def read(
        self, places: Iterator[Place], cache: CacheConfig | None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield images: `__key__`, `__url__`, `epoch` and the image's bytes.

        Raises:
            DataError: an index is not the one that the manifest lists.
        """

        def fetch(place: Place, read: Read) -> dict[str, Any]:
            file, rows = self.recent[place.shard]
            row = rows[place.row]
            offset, length, digest = (int(row[name]) for name in ("offset", "length", "xxh3"))
            return {
                "__key__": row["key"].decode(),
                "__url__": file.url,
                "epoch": place.epoch,
                IMAGE_MEMBER: read(file, offset, length, digest),
            }

        return read_places(places, fetch, local=self.is_local, cache=cache)
