"""Join image shards and target shards by (shard, key), and read the pairs.

The join needs manifests and indices only. The bytes of images and targets are verified when read.
"""

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline.errors import MismatchError, MissingDataError
from milan_pipeline.shards.cache import CacheConfig, ShardFile
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import Manifest, Shard, require_unique_stems
from milan_pipeline.shards.random_access import IMAGE_MEMBER, Place, Read, all_local, read_places
from milan_pipeline.targets.shard_records import TARGET_EXTENSION

JOIN_THREADS = 8
NAMED_KEYS = 5
OnMissing = Literal["error", "skip"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPairs:
    """The pairs of one image shard and one view, in the image shard's order.

    Rows hold, for each pair, (offset, length, xxh3) of the image's and the target's bytes.
    """

    view: int
    image_file: ShardFile
    target_file: ShardFile
    keys: NDArray[np.bytes_]
    image_rows: NDArray[np.void]
    target_rows: NDArray[np.void]
    missing: int

    @property
    def image_url(self) -> str:
        """Where the image shard lies."""
        return self.image_file.url

    @property
    def target_url(self) -> str:
        """Where the target shard lies."""
        return self.target_file.url


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairTable:
    """All pairs: for each view its shards, in the image manifest's order.

    `missing` counts what `--on-missing skip` left out: images without a target, and the reverse.
    """

    views: list[list[ShardPairs]]
    missing: int

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of pairs in each shard of a view."""
        return np.array([len(shard.keys) for shard in self.views[view]], dtype=np.int64)

    def total_bytes(self, view: int) -> int:
        """Return the bytes of a view's images and targets."""
        return sum(
            int(rows["length"].sum())
            for shard in self.views[view]
            for rows in (shard.image_rows, shard.target_rows)
        )

    def fingerprint(self) -> str:
        """Hash keys and digests in order, since the order of training depends on them."""
        digest = xxhash.xxh3_128()
        for view in self.views:
            for shard in view:
                digest.update(f"{shard.view} {len(shard.keys)} {shard.keys.dtype}".encode())
                digest.update(shard.keys.tobytes())
                digest.update(np.ascontiguousarray(shard.image_rows["xxh3"]).tobytes())
                digest.update(np.ascontiguousarray(shard.target_rows["xxh3"]).tobytes())
        return digest.hexdigest()


def join_pairs(
    images: Manifest, targets: Manifest, *, views: int, on_missing: OnMissing
) -> PairTable:
    """Pair every image with its target, view by view.

    Args:
        images: manifest of the image shards.
        targets: manifest of the target shards.
        views: how many views to use, from view 0.
        on_missing: what to do with an image without a target, or the reverse; an image that the
            extraction skipped is not missing.

    Raises:
        MissingDataError: a shard has no counterpart or, with "error", a sample has none.
        MismatchError: targets were made from another version of an image shard, or under another
            identity than their manifest's.
    """
    require_unique_stems(images.shards)
    _require_one_identity(targets)
    by_unit = {(row.details["view"], row.details["source"]): row for row in targets.shards}
    known = {shard.stem for shard in images.shards}
    orphans = [
        row for (view, source), row in by_unit.items() if view < views and source not in known
    ]
    if orphans and on_missing == "error":
        raise MissingDataError(
            f"{targets.folder} has targets of the image shard {orphans[0].details['source']}.tar, "
            f"which {images.folder} does not list; give its images or --on-missing skip"
        )
    units = [(view, shard) for view in range(views) for shard in images.shards]

    def join(unit: tuple[int, Shard]) -> ShardPairs | None:
        view, image = unit
        target = by_unit.get((view, image.stem))
        if target is None:
            if on_missing == "skip":
                return None
            raise MissingDataError(
                f"{targets.folder} has no targets for view {view} of {image.name}; extract and "
                "pack them, or --on-missing skip"
            )
        return _join_shard(images, image, targets, target, on_missing)

    with ThreadPoolExecutor(JOIN_THREADS) as pool:
        joined = list(pool.map(join, units))
    count = len(images.shards)
    rows = [joined[view * count : (view + 1) * count] for view in range(views)]
    missing = sum(row.samples for row in orphans) + sum(
        image.samples if pairs is None else pairs.missing
        for (_, image), pairs in zip(units, joined, strict=True)
    )
    return PairTable(
        views=[[shard for shard in row if shard is not None] for row in rows], missing=missing
    )


def _require_one_identity(targets: Manifest) -> None:
    """Refuse shards whose targets are not those of their manifest."""
    wanted = targets.common.get("identity_hash")
    for shard in targets.shards:
        found = shard.details.get("identity_hash")
        if found != wanted:
            raise MismatchError(
                f"{targets.folder} mixes targets: the identity_hash of {shard.name} is {found!r} "
                f"and {wanted!r} that of the manifest; run pack-targets again"
            )


def _join_shard(
    images: Manifest, image: Shard, targets: Manifest, target: Shard, on_missing: OnMissing
) -> ShardPairs:
    if target.details["source_sha256"] != image.sha256:
        raise MismatchError(
            f"{target.name} was made from another {image.name}: its sha256 was "
            f"{target.details['source_sha256'][:12]}… and is {image.sha256[:12]}… now; run "
            "extract-targets and pack-targets again"
        )
    image_rows, target_rows = load_index(images, image), load_index(targets, target)
    skipped = np.array([row["key"].encode() for row in target.details["skipped"]], dtype=np.bytes_)
    keys, image_at, target_at = np.intersect1d(
        image_rows["key"], target_rows["key"], assume_unique=True, return_indices=True
    )
    lone_images = np.setdiff1d(np.setdiff1d(image_rows["key"], keys), skipped)
    lone_targets = np.setdiff1d(target_rows["key"], keys)
    missing = len(lone_images) + len(lone_targets)
    if missing and on_missing == "error":
        raise MissingDataError(
            f"{target.name} and {image.name} do not pair: {_named(lone_images)} without a target, "
            f"{_named(lone_targets)} without an image; pack again or --on-missing skip"
        )
    file_order = np.argsort(image_at, kind="stable")
    places = ["offset", "length", "xxh3"]
    return ShardPairs(
        view=int(target.details["view"]),
        image_file=ShardFile(images.url_of(image), image.bytes, image.sha256),
        target_file=ShardFile(targets.url_of(target), target.bytes, target.sha256),
        keys=keys[file_order],
        image_rows=image_rows[places][image_at[file_order]],
        target_rows=target_rows[places][target_at[file_order]],
        missing=missing,
    )


def _named(keys: NDArray[np.bytes_]) -> str:
    names: Sequence[bytes] = keys[:NAMED_KEYS].tolist()
    if not names:
        return "no key"
    listing = ", ".join(repr(name.decode()) for name in names)
    return f"{len(keys)} keys ({listing}{', …' if len(keys) > NAMED_KEYS else ''})"


class RawPair(NamedTuple):
    """The bytes of a pair, verified."""

    place: Place
    image: bytes
    target: bytes


def read_pairs(
    pairs: PairTable, places: Iterator[Place], cache: CacheConfig | None = None
) -> Generator[RawPair, None, None]:
    """Yield the pairs at some places, in order; see `random_access.read_places`."""

    def fetch(place: Place, read: Read) -> RawPair:
        shard: ShardPairs = pairs.views[place.view][place.shard]
        image = read(shard.image_file, *shard.image_rows[place.row].tolist())
        target = read(shard.target_file, *shard.target_rows[place.row].tolist())
        return RawPair(place, image, target)

    return read_places(places, fetch, local=all_local(_urls(pairs)), cache=cache)


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
