"""Which pairs there are: image shards and target shards, joined by (shard, key).

An image may have targets of several teachers, each with a folder of target shards. A pair then has
a target of each.

How many pairs each shard has follows from the manifests: all images but those that extraction
skipped. Only where the numbers do not fit, indices are read for that. The samples of a shard are
joined when the first of them is read, and the join is refused unless it is as planned.

Legend: n image shards, s teachers, t target shards of one, v views, p image shards with targets of
a view.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.recent import RecentTables
from milan_pipeline.data.shard_pairs import ShardPairs, joined
from milan_pipeline.errors import MissingDataError
from milan_pipeline.shards.cache import ShardFile
from milan_pipeline.shards.columns import ShardColumns, ends
from milan_pipeline.shards.manifest import Shard

JOIN_THREADS = 8
OnMissing = Literal["error", "skip"]
Skipped = Mapping[int, tuple[str, ...]]
Files = tuple[ShardFile, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewPairs:
    """The pairs of a view, shard by shard, in the image manifest's order.

    Attributes:
        image_p: number of each image shard.
        target_sp: number of its target shard of each teacher.
        pairs_p: how many pairs they have.
    """

    image_p: NDArray[np.int64]
    target_sp: NDArray[np.int64]
    pairs_p: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairTable:
    """All pairs: for each view its shards, in the image manifest's order.

    `missing` counts what is left out by "skip": images without a target, and the reverse.
    `missing_within` is the same of single shards, by view and number of the image shard; others
    lack nothing. `skipped` has, for each teacher, the keys that extraction left out, by the number
    of the target shard.
    """

    images: ShardColumns
    targets: tuple[ShardColumns, ...]
    skipped: tuple[Skipped, ...]
    views: list[ViewPairs]
    missing: int
    missing_within: Mapping[tuple[int, int], int]

    @functools.cached_property
    def recent(self) -> RecentTables[tuple[int, int], tuple[ShardFile, Files, ShardPairs]]:
        """The files and the pairs of a view's shard, by both numbers."""
        return RecentTables(lambda at: (*self.files(*at), self.joined(*at)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was read, where the table is sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "recent"}

    @functools.cached_property
    def is_local(self) -> bool:
        """Whether all shards lie on this machine."""
        return all(shards.is_local() for shards in (self.images, *self.targets))

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of pairs in each shard of a view."""
        return self.views[view].pairs_p

    def total_bytes(self, view: int) -> int:
        """Return the bytes of a view's shards."""
        pairs = self.views[view]
        sizes = [self.images.bytes_n[pairs.image_p]]
        sizes += [
            shards.bytes_n[target_p]
            for shards, target_p in zip(self.targets, pairs.target_sp, strict=True)
        ]
        return int(np.concatenate(sizes).sum())

    def require_indices(self) -> None:
        """Look for all local files, and join the first and the last shards of each view.

        Shards and indices that were not copied, or are of another version, are named before
        training begins, not hours later. To read all indices would be a thousand requests of large
        data.

        Raises:
            MissingDataError, DataError: as `joined` does.
        """
        self.images.require_present(np.concatenate([view.image_p for view in self.views]))
        for number, shards in enumerate(self.targets):
            shards.require_present(np.concatenate([view.target_sp[number] for view in self.views]))
        places = [(view, at) for view in range(len(self.views)) for at in ends(self.counts(view))]
        work = ordered_map(
            lambda place: self.joined(*place), places, workers=JOIN_THREADS, ahead=JOIN_THREADS
        )
        for _ in work:
            pass

    def fingerprint(self) -> str:
        """Hash what the shards hold, in order, since the order of training depends on it."""
        digest = xxhash.xxh3_128()
        for view in self.views:
            digest.update(f"{len(view.image_p)} ".encode())
            digest.update(view.pairs_p.tobytes())
            digest.update(self.images.sha256_nH[view.image_p].tobytes())
            for shards, target_p in zip(self.targets, view.target_sp, strict=True):
                digest.update(shards.sha256_nH[target_p].tobytes())
        return digest.hexdigest()

    def files(self, view: int, number: int) -> tuple[ShardFile, Files]:
        """Return an image shard and its target shard of each teacher."""
        image, targets = self._numbers(view, number)
        files = (shards.file(at) for shards, at in zip(self.targets, targets, strict=True))
        return self.images.file(image), tuple(files)

    def joined(self, view: int, number: int) -> ShardPairs:
        """Read the indices of a pair of shards and join their samples.

        Raises:
            DataError: an index is not the one that its manifest lists.
            MissingDataError: other samples are missing than the manifests let expect.
        """
        image, targets = self._numbers(view, number)
        found = join_shards(self.images, image, self.targets, targets, self.skipped)
        planned = int(self.views[view].pairs_p[number]), self.missing_within.get((view, image), 0)
        if (len(found.keys), found.missing) != planned:
            remedy = (
                "their numbers of samples hid that; index the images and pack the targets again"
            )
            shards = [own.shard(at) for own, at in zip(self.targets, targets, strict=True)]
            raise do_not_pair(self.images.shard(image), shards, found, remedy)
        return found

    def _numbers(self, view: int, number: int) -> tuple[int, list[int]]:
        """Return the number of an image shard, and of its target shard of each teacher."""
        pairs = self.views[view]
        return int(pairs.image_p[number]), pairs.target_sp[:, number].tolist()


def join_shards(
    images: ShardColumns,
    image: int,
    targets: Sequence[ShardColumns],
    numbers: Sequence[int],
    skipped: Sequence[Skipped],
) -> ShardPairs:
    """Read the indices of an image shard and its target shards, and join their samples."""
    image_rows = images.index(image)
    rows = [shards.index(at) for shards, at in zip(targets, numbers, strict=True)]
    keys = [key for own, at in zip(skipped, numbers, strict=True) for key in own.get(at, ())]
    return joined(image_rows, rows, keys)


def do_not_pair(
    image: Shard, targets: Sequence[Shard], found: ShardPairs, remedy: str
) -> MissingDataError:
    """Return the error for shards whose samples do not pair."""
    names = ", ".join(shard.name for shard in targets)
    return MissingDataError(
        f"{names} and {image.name} do not pair: {found.said_missing()}; {remedy}"
    )
