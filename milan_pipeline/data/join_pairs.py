"""Join image shards and target shards by (shard, key): which pairs there will be.

Legend: n image shards, s teachers, t target shards of one, v views, u of them used, p image shards
with targets of a view.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.pair_table import (
    JOIN_THREADS,
    OnMissing,
    PairTable,
    ViewPairs,
    do_not_pair,
    join_shards,
)
from milan_pipeline.data.shard_pairs import ShardPairs
from milan_pipeline.errors import MismatchError, MissingDataError
from milan_pipeline.shards.columns import ShardColumns, TargetColumns, text_of, texts
from milan_pipeline.shards.manifest import require_unique_stems
from milan_pipeline.shards.shard_names import stem_of


def join_pairs(
    images: ShardColumns,
    targets: Sequence[TargetColumns],
    *,
    views: int,
    on_missing: OnMissing,
    or_skip: str = "",
) -> PairTable:
    """Pair every image with its target of each teacher, view by view.

    Args:
        images: the image shards.
        targets: the target shards of each teacher.
        views: how many views to use, from view 0.
        on_missing: what to do with an image that lacks a target, or the reverse; an image that an
            extraction skipped is not missing.
        or_skip: how the caller's user asks for "skip", for the end of an error: " or --option".

    Raises:
        MissingDataError: a shard has no counterpart or, with "error", a sample has none, as far as
            the manifests tell; `PairTable.joined` finds the others.
        MismatchError: targets were made from another version of an image shard, or under another
            identity than their manifest's.
        DataError: an index that must be read is damaged.
    """
    stems_n = _stems(images)
    missing, matched = 0, []
    for columns in targets:
        _require_one_identity(columns)
        target_vn, orphans = _matched(stems_n, columns, views)
        if on_missing == "error":
            _require_counterparts(images, columns, target_vn, orphans, or_skip)
        missing += int(columns.shards.samples_n[orphans].sum())
        matched.append(target_vn)
    target_svn = np.stack(matched)
    without = np.argwhere((target_svn < 0).any(axis=0))
    missing += int(images.samples_n[without[:, 1]].sum())
    found = [
        _view_pairs(images, targets, target_svn[:, v], on_missing, or_skip) for v in range(views)
    ]
    missing_within = {
        (view, image): count for view, (_, own) in enumerate(found) for image, count in own.items()
    }
    return PairTable(
        images=images,
        targets=tuple(columns.shards for columns in targets),
        skipped=tuple(columns.skipped for columns in targets),
        views=[pairs for pairs, _ in found],
        missing=missing + sum(missing_within.values()),
        missing_within=missing_within,
    )


def _require_counterparts(
    images: ShardColumns,
    targets: TargetColumns,
    target_vn: NDArray[np.int64],
    orphans: list[int],
    or_skip: str,
) -> None:
    """Refuse a target shard without an image shard, and the reverse."""
    folder = targets.shards.head.folder
    if orphans:
        source = text_of(targets.source_t[orphans[0]])
        raise MissingDataError(
            f"{folder} has targets of the image shard {source}.tar, which "
            f"{images.head.folder} does not list; give its images{or_skip}"
        )
    without = np.argwhere(target_vn < 0)
    if len(without):
        view, number = without[0].tolist()
        raise MissingDataError(
            f"{folder} has no targets for view {view} of {images.shard(number).name}; "
            f"extract and pack them{or_skip}"
        )


def _view_pairs(
    images: ShardColumns,
    targets: Sequence[TargetColumns],
    target_sn: NDArray[np.int64],
    on_missing: OnMissing,
    or_skip: str,
) -> tuple[ViewPairs, dict[int, int]]:
    """Count the pairs of a view's shards, and what is missing, by number of the image shard."""
    image_p = np.flatnonzero((target_sn >= 0).all(axis=0))
    target_sp = target_sn[:, image_p]
    pairs_p = images.samples_n[image_p]
    is_unlike_p = np.zeros(len(image_p), dtype=bool)
    skipped: dict[int, set[str]] = {}  # few shards have any
    for columns, target_p in zip(targets, target_sp, strict=True):
        _require_same_images(images, image_p, columns, target_p)
        is_unlike_p |= pairs_p != columns.shards.samples_n[target_p] + columns.skipped_t[target_p]
        for at in np.flatnonzero(columns.skipped_t[target_p]).tolist():
            skipped.setdefault(at, set()).update(columns.skipped[int(target_p[at])])
    for at, keys in skipped.items():
        pairs_p[at] -= len(keys)
    unlike = np.flatnonzero(is_unlike_p).tolist()
    shards = [columns.shards for columns in targets]
    keys_of = [columns.skipped for columns in targets]
    missing: dict[int, int] = {}

    def join(at: int) -> ShardPairs:
        return join_shards(images, int(image_p[at]), shards, target_sp[:, at].tolist(), keys_of)

    work = ordered_map(join, unlike, workers=JOIN_THREADS, ahead=2 * JOIN_THREADS)
    for at, found in zip(unlike, work, strict=True):
        image = int(image_p[at])
        if found.missing and on_missing == "error":
            own = [each.shard(int(t)) for each, t in zip(shards, target_sp[:, at], strict=True)]
            raise do_not_pair(images.shard(image), own, found, f"pack again{or_skip}")
        pairs_p[at], missing[image] = len(found.keys), found.missing
    return ViewPairs(image_p=image_p, target_sp=target_sp, pairs_p=pairs_p), missing


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
