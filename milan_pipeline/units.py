"""The fixed list of units, their done-marks, what is left to do and why.

A unit is one view of one image shard. Its mark is written last; a unit without one does not exist.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from milan_pipeline import storage
from milan_pipeline.errors import DataError
from milan_pipeline.manifest import Manifest, Shard

LISTING_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Unit:
    """One view of one image shard."""

    view: int
    shard: Shard

    @property
    def path(self) -> str:
        """Where the unit's arrays lie in the store."""
        return f"{view_name(self.view)}/{self.shard.stem}"

    @property
    def mark_path(self) -> str:
        """Where its done-mark lies in the store."""
        return f"done/{self.path}.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """What is known of a finished unit.

    `identity_hash` says what the targets are; `objects` maps the path of every object below the
    unit to its xxh3-128; `skipped` is the ledger: `{key, reason}` for every image of the shard
    that has no target.
    """

    shard: str
    sha256: str
    identity_hash: str
    view: int
    n: int
    skipped: list[dict[str, str]]
    objects: dict[str, str]

    def to_bytes(self) -> bytes:
        """Serialise."""
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()


def view_name(view: int) -> str:
    """Name a view's group: `view-00`."""
    return f"view-{view:02d}"


def list_units(manifest: Manifest, views: int) -> list[Unit]:
    """Return the full, ordered list of units: view by view, shards in the manifest's order."""
    return [Unit(view, shard) for view in range(views) for shard in manifest.shards]


def read_marks(store_url: str, views: int) -> dict[str, Mark]:
    """Read all marks of the first `views` views, by mark path; one listing a view.

    Raises:
        DataError: a mark is damaged.
    """
    paths = [
        f"done/{view_name(view)}/{name}"
        for view in range(views)
        for name in storage.list_names(storage.join(store_url, "done", view_name(view)))
    ]
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        marks = pool.map(lambda path: _read_mark(storage.join(store_url, path)), paths)
        return dict(zip(paths, marks, strict=True))


def marked_units(store_url: str, identity_hash: str) -> list[tuple[Unit, Mark]]:
    """List every finished unit of a store's identity, view by view, shards by name."""
    views = len(storage.list_names(storage.join(store_url, "done")))
    found = []
    for mark in read_marks(store_url, views).values():
        if mark.identity_hash != identity_hash:
            continue
        shard = Shard(name=mark.shard, samples=mark.n, bytes=0, sha256=mark.sha256, index_sha256="")
        found.append((Unit(mark.view, shard), mark))
    return found


def why_undone(unit: Unit, marks: Mapping[str, Mark], identity_hash: str) -> str | None:
    """Say why a unit must be done for the store's identity, or None where it is done."""
    mark = marks.get(unit.mark_path)
    if mark is None:
        return "not done yet"
    if mark.sha256 != unit.shard.sha256:
        return "its image shard has changed"
    if mark.identity_hash != identity_hash:
        return "it was extracted with other parameters"
    return None


def undone_units(
    units: Iterable[Unit], marks: Mapping[str, Mark], identity_hash: str
) -> dict[Unit, str]:
    """Return the units that are left to do, in order, each with the reason."""
    reasons = {unit: why_undone(unit, marks, identity_hash) for unit in units}
    return {unit: reason for unit, reason in reasons.items() if reason is not None}


def _read_mark(url: str) -> Mark:
    data = storage.read_bytes(url)
    try:
        document: dict[str, Any] = json.loads(data)
        return Mark(**document)
    except (ValueError, TypeError) as error:
        raise DataError(f"{url} is damaged ({error}); delete it, and its unit is redone") from error
