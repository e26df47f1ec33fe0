"""The fixed list of units, their done-marks, what is left to do and why.

A unit is one view of one image shard. Its mark is written last; a unit without one does not exist.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

from milan_pipeline import storage
from milan_pipeline.core.schema import Count, DocumentError, Positive, conforming, parsed
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.images.budget import Skipped
from milan_pipeline.shards.manifest import Manifest, Shard

REVOKED = "its mark is revoked: it was, or is, being written over"
NOT_DONE = "not done yet"


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
    that has no target; `source_unit` is the hash of the other store's unit that this one was
    transcoded from, if it was.
    """

    shard: str
    sha256: str
    identity_hash: str
    view: Count
    n: Count
    skipped: list[Skipped]
    objects: dict[str, str]
    source_unit: str | None = None

    def to_bytes(self) -> bytes:
        """Serialise."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return (json.dumps(known, indent=1, sort_keys=True) + "\n").encode()


def view_name(view: int) -> str:
    """Name a view's group: `view-00`."""
    return f"view-{view:02d}"


def target_shard_name(unit: Unit) -> str:
    """Name a unit's target shard; its basename differs from that of every image shard."""
    return f"{view_name(unit.view)}/targets-v{unit.view:02d}-{unit.shard.stem}.tar"


def unit_sha256(mark: Mark) -> str:
    """Hash a unit's mark, and by it all that the unit holds."""
    return hashlib.sha256(mark.to_bytes()).hexdigest()


def shard_details(unit: Unit, mark: Mark, identity_hash: str) -> dict[str, Any]:
    """Say in the manifest what a target shard was made of, and of what identity it is now."""
    return {
        "view": unit.view,
        "source": unit.shard.stem,
        "source_sha256": mark.sha256,
        "unit_sha256": unit_sha256(mark),
        "identity_hash": identity_hash,
        "skipped": mark.skipped,
    }


def list_units(manifest: Manifest, views: int) -> list[Unit]:
    """Return the full, ordered list of units: view by view, shards in the manifest's order."""
    return [Unit(view, shard) for view in range(views) for shard in manifest.shards]


def read_marks(store_url: str, views: int, *, objects: bool = True) -> dict[str, Mark]:
    """Read all marks of the first `views` views, by mark path; one listing a view.

    Args:
        store_url: the store.
        views: how many views to read.
        objects: keep each unit's list of objects. Most of a mark is that list, which only reading
            the unit needs; without it, `Mark.objects` is empty.

    Raises:
        DataError: a mark is damaged.
    """
    marks: dict[str, Mark] = {}
    for view in range(views):
        folder = f"done/{view_name(view)}"
        names = storage.list_names(storage.join(store_url, folder))
        for name, mark in zip(
            names, _marks_of(storage.join(store_url, folder), names, objects), strict=True
        ):
            marks[f"{folder}/{name}"] = mark
    return marks


def read_mark(store_url: str, unit: Unit) -> Mark | None:
    """Read one unit's mark; None where it has none.

    Raises:
        DataError: it is damaged.
    """
    url = storage.join(store_url, unit.mark_path)
    try:
        return _parsed(url, storage.read_bytes(url), objects=True)
    except MissingDataError:
        return None


def extent_of(manifest: Manifest, views: int) -> dict[str, Any]:
    """Describe the full list of units, for the record: so many views of these shards."""
    return {
        "images_manifest_sha256": manifest.sha256,
        "views": views,
        "shards": {shard.name: shard.sha256 for shard in manifest.shards},
        "samples": [shard.samples for shard in manifest.shards],
    }


class _Extent(TypedDict):
    views: Positive
    shards: dict[str, str]
    samples: NotRequired[list[Count]]


def require_extent(document: Any) -> dict[str, Any]:
    """Return what may be an extent, if it is one; raises `DocumentError`."""
    found = conforming(document, _Extent)
    if len(found.get("samples") or found["shards"]) != len(found["shards"]):
        raise DocumentError("it has not as many samples as shards")
    return document  # type: ignore[no-any-return]


def units_of_extent(extent: Mapping[str, Any], views: int) -> list[Unit]:
    """Rebuild the list of units that `extent_of` described, of its first views."""
    samples = extent.get("samples") or [0] * len(extent["shards"])
    shards = [
        Shard(name=name, samples=count, bytes=0, sha256=sha256, index_sha256="")
        for (name, sha256), count in zip(extent["shards"].items(), samples, strict=True)
    ]
    return [Unit(view, shard) for view in range(views) for shard in shards]


def require_same_images(
    store_url: str, manifest: Manifest, marks: Mapping[str, Mark], remedy: str
) -> None:
    """Refuse image shards that only share their names with those the store was made from.

    A shard that changed is extracted again; where none is as it was, it is another data set.

    Raises:
        MismatchError: no marked unit is of one of these shards as they are.
    """
    known = {mark.shard: mark.sha256 for mark in marks.values() if mark.identity_hash}
    shared = [shard for shard in manifest.shards if shard.name in known]
    if shared and all(shard.sha256 != known[shard.name] for shard in shared):
        name, now = shared[0].name, shared[0].sha256
        raise MismatchError(
            f"{store_url} holds targets of other images: {name} has the sha256 "
            f"{known[name][:12]}… there and {now[:12]}… here; {remedy}"
        )


def why_undone(unit: Unit, marks: Mapping[str, Mark], identity_hash: str) -> str | None:
    """Say why a unit must be done for the store's identity, or None where it is done."""
    mark = marks.get(unit.mark_path)
    if mark is None:
        return NOT_DONE
    if not mark.identity_hash:
        return REVOKED
    if mark.sha256 != unit.shard.sha256:
        return "its image shard has changed"
    if mark.identity_hash != identity_hash:
        return "it was extracted with other parameters"
    return None


def why_not_transcoded(
    unit: Unit, marks: Mapping[str, Mark], identity_hash: str, source: Mark
) -> str | None:
    """Say why a unit must be made anew of another store's, or None where it is done.

    Args:
        unit: which one.
        marks: of the store that is written.
        identity_hash: of that store.
        source: mark of the other store's unit.
    """
    reason = why_undone(unit, marks, identity_hash)
    if reason is None and marks[unit.mark_path].source_unit != unit_sha256(source):
        return "the unit that it was transcoded from has changed"
    return reason


def is_current(mark: Mark, unit: Unit, identity_hash: str) -> bool:
    """Tell whether a mark vouches for the unit as it is and as the store wants it."""
    return why_undone(unit, {unit.mark_path: mark}, identity_hash) is None


def revoked(unit: Unit) -> Mark:
    """Return the mark of a unit that is being written over: no unit is done by it."""
    return Mark(
        shard=unit.shard.name, sha256="", identity_hash="", view=unit.view, n=0, skipped=[],
        objects={},
    )  # fmt: skip


def revoke(store_url: str, unit: Unit) -> None:
    """Write a unit's mark over, so that no process takes the unit for done."""
    storage.put_bytes(storage.join(store_url, unit.mark_path), revoked(unit).to_bytes())


def undone_units(
    units: Iterable[Unit], marks: Mapping[str, Mark], identity_hash: str
) -> dict[Unit, str]:
    """Return the units that are left to do, in order, each with the reason."""
    reasons = {unit: why_undone(unit, marks, identity_hash) for unit in units}
    return {unit: reason for unit, reason in reasons.items() if reason is not None}


def _marks_of(folder: str, names: list[str], objects: bool) -> list[Mark]:
    """Read the marks of one listing, in its order."""
    urls = [storage.join(folder, name) for name in names]
    with contextlib.closing(storage.read_many(urls)) as contents:
        return [
            _parsed(url, data, objects=objects) for url, data in zip(urls, contents, strict=True)
        ]


def _parsed(url: str, data: bytes, *, objects: bool) -> Mark:
    try:
        document = parsed(data, dict[str, Any])
        if not objects:
            document["objects"] = {}
        return conforming(document, Mark)
    except DocumentError as error:
        raise DataError(f"{url} is damaged ({error}); delete it, and its unit is redone") from error
