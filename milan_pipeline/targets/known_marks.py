"""What marks said that were read before: `marks/view-VV.json` in a store of many units.

Each unit has a mark of its own, and a stage that begins must know all of them. Reading 400,000
small objects takes minutes; listing them takes 400 requests. So a stage that has read many marks
writes down what they say, with the stamp that the listing gave to each: a store's ETag, or size,
time and inode of a file. The next reader reads only the marks that have another stamp now. This
file is no part of the targets: if it is missing or damaged, all marks are read.
"""

import logging
from collections.abc import Mapping

import msgspec
import xxhash

from milan_pipeline import storage
from milan_pipeline.core.garbage import no_search_for_cycles
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.images.budget import Skipped

logger = logging.getLogger(__name__)

FOLDER = "marks"
VERSION = b"2"
WORTH_KEEPING = 1000
"""Marks are written down if so many of them are new, and a tenth of all; fewer are just read."""

Stamps = Mapping[str, str | None]
"""What a listing told of each file, by name; see `storage.list_stamps`."""


class BriefMark(msgspec.Struct, array_like=True, gc=False):
    """A mark without the list of objects, which is most of it; see `units.Mark`.

    `unit_sha256` is the hash of the whole mark.
    """

    shard: str
    sha256: str
    identity_hash: str
    view: int
    n: int
    skipped: list[Skipped]
    source_unit: str | None
    unit_sha256: str


class _Row(msgspec.Struct, array_like=True, gc=False):
    name: str
    stamp: str
    mark: BriefMark


def read_known(store_url: str, view: str, stamps: Stamps) -> dict[str, BriefMark]:
    """Return what is known of the marks that have not changed since, by name.

    Args:
        store_url: the store.
        view: name of the view.
        stamps: of the view's marks, now.
    """
    if len(stamps) < WORTH_KEEPING:
        return {}
    try:
        head, _, data = storage.read_bytes(_url(store_url, view)).partition(b"\n")
        if head != _head(data):
            return {}
        with no_search_for_cycles():
            rows = msgspec.json.decode(data, type=list[_Row])
    except (MissingDataError, msgspec.MsgspecError):
        return {}
    return {row.name: row.mark for row in rows if stamps.get(row.name) == row.stamp}


def keep_known(
    store_url: str, view: str, marks: Mapping[str, BriefMark], stamps: Stamps, *, new: int
) -> None:
    """Write down what a view's marks say, if many of them are new.

    Args:
        store_url: the store.
        view: name of the view.
        marks: all of them, by name; they were read after they were listed.
        stamps: of that listing.
        new: how many of the marks were not known.
    """
    if new < max(WORTH_KEEPING, len(marks) // 10):
        return
    listed = ((name, stamps[name], mark) for name, mark in marks.items())
    rows = [_Row(name, stamp, mark) for name, stamp, mark in listed if stamp]
    try:
        data = msgspec.json.encode(rows)
        storage.put_bytes(_url(store_url, view), _head(data) + b"\n" + data)
    except (UnicodeEncodeError, StorageError) as error:  # then the next start takes longer
        logger.info("%s", error)


def _head(data: bytes) -> bytes:
    return VERSION + b" " + xxhash.xxh3_128_hexdigest(data).encode()


def _url(store_url: str, view: str) -> str:
    return storage.join(store_url, FOLDER, f"{view}.json")
