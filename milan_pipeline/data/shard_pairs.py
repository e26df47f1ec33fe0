"""Join one image shard and one of its target shards, sample by sample."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

NAMED_KEYS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPairs:
    """The pairs of one image shard and one view, in the image shard's order.

    Rows hold, for each pair, (offset, length, xxh3) of the image's and the target's bytes.

    Attributes:
        keys: of the pairs.
        image_rows: where the images lie.
        target_rows: where the targets lie.
        lone_images: keys of images that have no target and were not skipped.
        lone_targets: keys of targets that have no image.
    """

    keys: NDArray[np.bytes_]
    image_rows: NDArray[np.void]
    target_rows: NDArray[np.void]
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
    image_rows: NDArray[np.void], target_rows: NDArray[np.void], skipped: Sequence[str]
) -> ShardPairs:
    """Pair the samples of two indices by their keys.

    Args:
        image_rows: index of the image shard.
        target_rows: index of the target shard.
        skipped: keys of images that extraction left out.
    """
    left_out = np.array([key.encode() for key in skipped], dtype=np.bytes_)
    keys, image_at, target_at = np.intersect1d(
        image_rows["key"], target_rows["key"], assume_unique=True, return_indices=True
    )
    file_order = np.argsort(image_at, kind="stable")
    places = ["offset", "length", "xxh3"]
    return ShardPairs(
        keys=keys[file_order],
        image_rows=repack_fields(image_rows[places][image_at[file_order]]),
        target_rows=repack_fields(target_rows[places][target_at[file_order]]),
        lone_images=np.setdiff1d(np.setdiff1d(image_rows["key"], keys), left_out),
        lone_targets=np.setdiff1d(target_rows["key"], keys),
    )


def _named(keys: NDArray[np.bytes_]) -> str:
    names: Sequence[bytes] = keys[:NAMED_KEYS].tolist()
    if not names:
        return "no key"
    listing = ", ".join(repr(name.decode()) for name in names)
    return f"{len(keys)} keys ({listing}{', …' if len(keys) > NAMED_KEYS else ''})"
