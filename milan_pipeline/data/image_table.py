"""Images without labels or targets as a table that an order runs over."""

import dataclasses
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.shards.cache import CacheConfig, ShardFile
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.random_access import IMAGE_MEMBER, Place, Read, all_local, read_places

INDEX_THREADS = 8


@dataclasses.dataclass(frozen=True)
class ImageTable:
    """The images of all shards of a manifest; see `random_access.SampleTable`.

    Attributes:
        files: the shards.
        rows: the index of each.
        cycle: every epoch has the same images.
    """

    files: list[ShardFile]
    rows: list[NDArray[np.void]]
    cycle: int = 1

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of images in each shard."""
        del view
        return np.array([len(rows) for rows in self.rows], dtype=np.int64)

    def read(
        self, places: Iterator[Place], cache: CacheConfig | None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield images: `__key__`, `__url__`, `epoch` and the image's bytes."""

        def fetch(place: Place, read: Read) -> dict[str, Any]:
            file, row = self.files[place.shard], self.rows[place.shard][place.row]
            offset, length, digest = (int(row[name]) for name in ("offset", "length", "xxh3"))
            return {
                "__key__": row["key"].decode(),
                "__url__": file.url,
                "epoch": place.epoch,
                IMAGE_MEMBER: read(file, offset, length, digest),
            }

        return read_places(
            places, fetch, local=all_local(file.url for file in self.files), cache=cache
        )


def open_images(manifest: Manifest) -> ImageTable:
    """Load the indices of a manifest's image shards.

    Raises:
        DataError: an index is not the one that the manifest lists.
    """
    files = [ShardFile(manifest.url_of(s), s.bytes, s.sha256) for s in manifest.shards]
    rows = ordered_map(
        lambda shard: load_index(manifest, shard),
        manifest.shards,
        workers=INDEX_THREADS,
        ahead=2 * INDEX_THREADS,
    )
    return ImageTable(files, list(rows))
