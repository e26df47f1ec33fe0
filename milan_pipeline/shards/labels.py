"""Labels of samples in image shards: a class number in a `.cls` member, or a mask beside the image.

The index of a shard has them (`index.index_table`), so that training starts without reading a tar.
"""

from collections.abc import Mapping
from typing import NamedTuple

import xxhash

from milan_pipeline.errors import DataError

MASK_EXTENSIONS = ("mask.png", "seg.png")
NO_CLASS = -1
MOST = 2**63 - 1


class MemberPlace(NamedTuple):
    """Where a member's bytes lie in a tar, and their xxh3-64; a length of 0 is no member."""

    offset: int = 0
    length: int = 0
    xxh3: int = 0


class Label(NamedTuple):
    """What labels a sample: a class number of 0 or more, a mask, both or neither."""

    number: int = NO_CLASS
    mask: MemberPlace = MemberPlace()


def label_of(members: Mapping[str, bytes], offsets: Mapping[str, int]) -> Label:
    """Return the label of a sample.

    Args:
        members: the sample's members by extension.
        offsets: where their bytes begin in the tar, by extension.
    """
    number = class_number(members)
    mask = next((e for e in MASK_EXTENSIONS if e in members), None)
    if mask is None:
        return Label(number)
    data = members[mask]
    return Label(number, MemberPlace(offsets[mask], len(data), xxhash.xxh3_64_intdigest(data)))


def class_number(members: Mapping[str, bytes]) -> int:
    """Return the number in a sample's `.cls` member; `NO_CLASS` if it has none of 0 or more.

    A number that does not fit in 64 bits is an identifier of something else.
    """
    try:
        number = int(members["cls"])
    except (KeyError, ValueError):
        return NO_CLASS
    return number if 0 <= number <= MOST else NO_CLASS


def require_label(label: Label, kind: str, key: str, shard: str) -> None:
    """Refuse a sample that lacks a label.

    Args:
        label: the sample's.
        kind: "class" or "mask".
        key: of the sample, for the error.
        shard: the name of its shard, for the error.

    Raises:
        DataError: there is no such label.
    """
    if kind == "class" and label.number == NO_CLASS:
        raise DataError(
            f"sample {key!r} of {shard} has no class number in a .cls member; give labelled "
            "shards, such as `pack-images` makes of a class tree or of a list with classes"
        )
    if kind == "mask" and not label.mask.length:
        raise DataError(
            f"sample {key!r} of {shard} has no .{MASK_EXTENSIONS[0]} member; give shards with masks"
        )
