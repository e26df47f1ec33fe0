"""Join one image shard and target shards of one of its views, sample by sample."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

NAMED_KEYS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPairs:
    """The pairs of one image shard and one view, in the image shard's order.

    Rows hold, for each pair, (offset, length, xxh3) of the image's and the target's bytes. An image
    with targets of several teachers is one pair.

    Attributes:
        keys: of the pairs.
        image_rows: where the images lie.
        target_rows: where the targets lie, for each teacher.
        lone_images: keys of images that lack a target and were not skipped.
        lone_targets: keys of targets that have no image.
    """

    keys: NDArray[np.bytes_]
    image_rows: NDArray[np.void]
    target_rows: tuple[NDArray[np.void], ...]
    lone_images: NDArray[np.bytes_]
    lone_targets: NDArray[np.bytes_]

    @property
    def missing(self) -> int:
        """The number of images without a target, and the reverse."""
        return len(self.lone_images) + len(self.lone_targets)

    def said_missing(self) -> str:
        """Say which keys are missing, for an error."""
        return (
            f"{_named(self.lone_images)} without a target, {_named(self.lone_targets)} without an "
            "image"
        )


def joined(
    image_rows: NDArray[np.void], target_rows: Sequence[NDArray[np.void]], skipped: Iterable[str]
) -> ShardPairs:
    """Pair the samples of indices by their keys; a pair is in all of them.

    Args:
        image_rows: index of the image shard.
        target_rows: index of the target shard of each teacher.
        skipped: keys of images that an extraction left out.
    """
    left_out = np.array([key.encode() for key in skipped], dtype=np.bytes_)
    keys = image_rows["key"]
    for rows in target_rows:
        keys = np.intersect1d(keys, rows["key"], assume_unique=True)
    image_at, *targets_at = (_at(rows["key"], keys) for rows in (image_rows, *target_rows))
    file_order = np.argsort(image_at, kind="stable")
    strangers = [np.setdiff1d(rows["key"], image_rows["key"]) for rows in target_rows]
    return ShardPairs(
        keys=keys[file_order],
        image_rows=_places(image_rows, image_at[file_order]),
        target_rows=tuple(
            _places(rows, at[file_order]) for rows, at in zip(target_rows, targets_at, strict=True)
        ),
        lone_images=np.setdiff1d(np.setdiff1d(image_rows["key"], keys), left_out),
        lone_targets=np.unique(np.concatenate(strangers)),
    )


def _at(all_n: NDArray[np.bytes_], keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return where sorted keys are among all of an index."""
    at: NDArray[np.int64] = np.intersect1d(all_n, keys, assume_unique=True, return_indices=True)[1]
    return at


def _places(rows: NDArray[np.void], at: NDArray[np.int64]) -> NDArray[np.void]:
    places: NDArray[np.void] = repack_fields(rows[["offset", "length", "xxh3"]][at])
    return places


def _named(keys: NDArray[np.bytes_]) -> str:
    names: Sequence[bytes] = keys[:NAMED_KEYS].tolist()
    if not names:
        return "no key"
    listing = ", ".join(repr(name.decode()) for name in names)
    return f"{len(keys)} keys ({listing}{', …' if len(keys) > NAMED_KEYS else ''})"
