"""What marks said that were read before: `marks/view-VV.json` in a store of many units.

Each unit has a mark of its own, and a stage that begins must know all of them. Reading 400,000
small objects takes minutes; listing them takes 400 requests. So a stage that has read many marks
writes down what they say, with the stamp that the listing gave to each: a store's ETag, or size,
time and inode of a file. The next reader reads only the marks that have another stamp now. This
file is no part of the targets: if it is missing or damaged, all marks are read.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import xxhash

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError, StorageError

logger = logging.getLogger(__name__)

FOLDER = "marks"
VERSION = b"1"
WORTH_KEEPING = 1000
"""Marks are written down if so many of them are new, and a tenth of all; fewer are just read."""

Stamps = Mapping[str, str | None]
"""What a listing told of each file, by name; see `storage.list_stamps`."""


def read_known(store_url: str, view: str, stamps: Stamps) -> dict[str, dict[str, Any]]:
    """Return what is known of the marks that have not changed since: fields, by the mark's name.

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
        rows = msgspec.json.decode(data, type=list[tuple[str, str, dict[str, Any]]])
    except (MissingDataError, msgspec.MsgspecError):
        return {}
    return {name: fields for name, stamp, fields in rows if stamps.get(name) == stamp}


def keep_known(
    store_url: str,
    view: str,
    marks: Mapping[str, Mapping[str, Any]],
    stamps: Stamps,
    *,
    new: int,
) -> None:
    """Write down what a view's marks say, if many of them are new.

    Args:
        store_url: the store.
        view: name of the view.
        marks: fields of all marks, by name; they were read after they were listed.
        stamps: of that listing.
        new: how many marks were not known before.
    """
    if new < max(WORTH_KEEPING, len(marks) // 10):
        return
    rows = [(name, stamps[name], fields) for name, fields in marks.items() if stamps[name]]
    data = msgspec.json.encode(rows)
    try:
        storage.put_bytes(_url(store_url, view), _head(data) + b"\n" + data)
    except StorageError as error:  # then the next start takes longer
        logger.info("%s", error)


def _head(data: bytes) -> bytes:
    return VERSION + b" " + xxhash.xxh3_128_hexdigest(data).encode()


def _url(store_url: str, view: str) -> str:
    return storage.join(store_url, FOLDER, f"{view}.json")
