"""Which pairs there are: image shards and target shards, joined by (shard, key).

How many pairs each shard has follows from the manifests: all images but those that extraction
skipped. Only where the numbers do not fit, indices are read for that. The samples of a shard are
joined when the first of them is read, and the join is refused unless it is as planned.

Legend: n image shards, t target shards, v views, p image shards with targets of a view.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.recent import RecentTables
from milan_pipeline.data.shard_pairs import ShardPairs, joined
from milan_pipeline.errors import MismatchError, MissingDataError
from milan_pipeline.shards.cache import ShardFile
from milan_pipeline.shards.columns import ShardColumns, TargetColumns, ends, text_of, texts
from milan_pipeline.shards.manifest import Shard, require_unique_stems, stem_of

JOIN_THREADS = 8
OnMissing = Literal["error", "skip"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewPairs:
    """The pairs of a view, shard by shard, in the image manifest's order.

    Attributes:
        image_p: number of each image shard.
        target_p: number of its target shard.
        pairs_p: how many pairs they have.
    """

    image_p: NDArray[np.int64]
    target_p: NDArray[np.int64]
    pairs_p: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairTable:
    """All pairs: for each view its shards, in the image manifest's order.

    `missing` counts what `--on-missing skip` left out: images without a target, and the reverse.
    `missing_within` is the same of single shards, by the number of the target shard; others lack
    nothing. `skipped` has the keys that extraction left out, by the number of the target shard.
    """

    images: ShardColumns
    targets: ShardColumns
    skipped: Mapping[int, tuple[str, ...]]
    views: list[ViewPairs]
    missing: int
    missing_within: Mapping[int, int]

    @functools.cached_property
    def recent(self) -> RecentTables[tuple[int, int], tuple[ShardFile, ShardFile, ShardPairs]]:
        """The files and the pairs of a view's shard, by both numbers."""
        return RecentTables(lambda at: (*self.files(*at), self.joined(*at)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was read, where the table is sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "recent"}

    @functools.cached_property
    def is_local(self) -> bool:
        """Whether all shards lie on this machine."""
        return self.images.is_local() and self.targets.is_local()

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of pairs in each shard of a view."""
        return self.views[view].pairs_p

    def total_bytes(self, view: int) -> int:
        """Return the bytes of a view's shards."""
        pairs = self.views[view]
        images, targets = self.images.bytes_n[pairs.image_p], self.targets.bytes_n[pairs.target_p]
        return int(images.sum() + targets.sum())

    def require_indices(self) -> None:
        """Look for all local files, and join the first and the last shards of each view.

        Shards and indices that were not copied, or are of another version, are named before
        training begins, not hours later. To read all indices would be a thousand requests of large
        data.

        Raises:
            MissingDataError, DataError: as `joined` does.
        """
        self.images.require_present(np.concatenate([view.image_p for view in self.views]))
        self.targets.require_present(np.concatenate([view.target_p for view in self.views]))
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
            digest.update(self.targets.sha256_nH[view.target_p].tobytes())
        return digest.hexdigest()

    def files(self, view: int, number: int) -> tuple[ShardFile, ShardFile]:
        """Return an image shard and its target shard."""
        pairs = self.views[view]
        image, target = int(pairs.image_p[number]), int(pairs.target_p[number])
        return self.images.file(image), self.targets.file(target)

    def joined(self, view: int, number: int) -> ShardPairs:
        """Read the indices of a pair of shards and join their samples.

        Raises:
            DataError: an index is not the one that its manifest lists.
            MissingDataError: other samples are missing than the manifests let expect.
        """
        pairs = self.views[view]
        image, target = int(pairs.image_p[number]), int(pairs.target_p[number])
        skipped = self.skipped.get(target, ())
        found = joined(self.images.index(image), self.targets.index(target), skipped)
        planned = int(pairs.pairs_p[number]), self.missing_within.get(target, 0)
        if (len(found.keys), found.missing) != planned:
            shards = self.images.shard(image), self.targets.shard(target)
            remedy = (
                "their numbers of samples hid that; index the images and pack the targets again"
            )
            raise _do_not_pair(*shards, found, remedy)
        return found


def join_pairs(
    images: ShardColumns, targets: TargetColumns, *, views: int, on_missing: OnMissing
) -> PairTable:
    """Pair every image with its target, view by view.

    Args:
        images: the image shards.
        targets: the target shards.
        views: how many views to use, from view 0.
        on_missing: what to do with an image without a target, or the reverse; an image that the
            extraction skipped is not missing.

    Raises:
        MissingDataError: a shard has no counterpart or, with "error", a sample has none, as far as
            the manifests tell; `PairTable.joined` finds the others.
        MismatchError: targets were made from another version of an image shard, or under another
            identity than their manifest's.
        DataError: an index that must be read is damaged.
    """
    shards = targets.shards
    stems_n = _stems(images)
    _require_one_identity(targets)
    target_vn, orphans = _matched(stems_n, targets, views)
    if orphans and on_missing == "error":
        source = text_of(targets.source_t[orphans[0]])
        raise MissingDataError(
            f"{shards.head.folder} has targets of the image shard {source}.tar, which "
            f"{images.head.folder} does not list; give its images or --on-missing skip"
        )
    without = np.argwhere(target_vn < 0)
    if len(without) and on_missing == "error":
        view, number = without[0].tolist()
        raise MissingDataError(
            f"{shards.head.folder} has no targets for view {view} of {images.shard(number).name}; "
            "extract and pack them, or --on-missing skip"
        )
    missing_within: dict[int, int] = {}
    pairs = [_view_pairs(images, targets, row_n, on_missing, missing_within) for row_n in target_vn]
    missing = int(shards.samples_n[orphans].sum() + images.samples_n[without[:, 1]].sum())
    return PairTable(
        images=images,
        targets=shards,
        skipped=targets.skipped,
        views=pairs,
        missing=missing + sum(missing_within.values()),
        missing_within=missing_within,
    )


def _view_pairs(
    images: ShardColumns,
    targets: TargetColumns,
    target_n: NDArray[np.int64],
    on_missing: OnMissing,
    missing_within: dict[int, int],
) -> ViewPairs:
    """Count the pairs of a view's shards; note in `missing_within` where samples are missing."""
    image_p = np.flatnonzero(target_n >= 0)
    target_p = target_n[image_p]
    _require_same_images(images, image_p, targets, target_p)
    pairs_p = targets.shards.samples_n[target_p]
    skipped_p = targets.skipped_t[target_p]
    unlike = np.flatnonzero(images.samples_n[image_p] != pairs_p + skipped_p).tolist()

    def join(at: int) -> ShardPairs:
        image, target = int(image_p[at]), int(target_p[at])
        rows = images.index(image), targets.shards.index(target)
        return joined(*rows, targets.skipped.get(target, ()))

    work = ordered_map(join, unlike, workers=JOIN_THREADS, ahead=2 * JOIN_THREADS)
    for at, found in zip(unlike, work, strict=True):
        image, target = int(image_p[at]), int(target_p[at])
        if found.missing and on_missing == "error":
            shards = images.shard(image), targets.shards.shard(target)
            raise _do_not_pair(*shards, found, "pack again or --on-missing skip")
        pairs_p[at], missing_within[target] = len(found.keys), found.missing
    return ViewPairs(image_p=image_p, target_p=target_p, pairs_p=pairs_p)


def _stems(images: ShardColumns) -> NDArray[np.bytes_]:
    """Return the stems of image shards (n,); refuse two that are alike."""
    stems = [stem_of(text_of(name)) for name in images.names_n.tolist()]
    if len({stem.casefold() for stem in stems}) < len(stems):
        require_unique_stems(tuple(map(images.shard, range(len(images)))))
    return texts(stems)


def _require_one_identity(targets: TargetColumns) -> None:
    """Refuse shards whose targets are not those of their manifest."""
    head = targets.shards.head
    wanted = head.common.get("identity_hash")
    for found, name in targets.identities.items():
        if found != wanted:
            raise MismatchError(
                f"{head.folder} mixes targets: the identity_hash of {name} is {found!r} "
                f"and {wanted!r} that of the manifest; run pack-targets again"
            )


def _matched(
    stems_n: NDArray[np.bytes_], targets: TargetColumns, views: int
) -> tuple[NDArray[np.int64], list[int]]:
    """Find the target shard of each view and image shard; of equal ones, the one listed last.

    Returns:
        target_vn: their numbers; -1 where there is none.
        orphans: numbers of those target shards whose image shard is not listed.
    """
    used = np.flatnonzero(targets.view_t < views)
    source_u, view_u = targets.source_t[used], targets.view_t[used]
    order_n = np.argsort(stems_n)
    image_u = np.searchsorted(stems_n, source_u, sorter=order_n)
    image_u = np.append(order_n, -1)[image_u]
    is_known = np.append(stems_n, b"")[image_u] == source_u
    target_vn = np.full((views, len(stems_n)), -1)
    target_vn[view_u[is_known], image_u[is_known]] = used[is_known]
    strangers = used[~is_known].tolist()
    unique = {(int(targets.view_t[t]), bytes(targets.source_t[t])): t for t in strangers}
    return target_vn, list(unique.values())


def _require_same_images(
    images: ShardColumns,
    image_p: NDArray[np.int64],
    targets: TargetColumns,
    target_p: NDArray[np.int64],
) -> None:
    is_other_p = (images.sha256_nH[image_p] != targets.source_sha256_tH[target_p]).any(axis=1)
    if is_other_p.any():
        at = int(np.argmax(is_other_p))
        image, target = images.shard(int(image_p[at])), targets.shards.shard(int(target_p[at]))
        then = targets.source_sha256_tH[target_p[at]].tobytes().hex()
        raise MismatchError(
            f"{target.name} was made from another {image.name}: its sha256 was {then[:12]}… and is "
            f"{image.sha256[:12]}… now; run extract-targets and pack-targets again"
        )


def _do_not_pair(image: Shard, target: Shard, found: ShardPairs, remedy: str) -> MissingDataError:
    return MissingDataError(
        f"{target.name} and {image.name} do not pair: {found.said_missing()}; {remedy}"
    )
