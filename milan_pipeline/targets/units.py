"""Units, their marks, and why one is left to do.

A unit is one view of one image shard. Its mark is written last, so a unit without a mark counts as
not there.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from milan_pipeline import storage
from milan_pipeline.core.json_text import indented_bytes
from milan_pipeline.core.schema import Count, DocumentError, parsed
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.images.budget import Skipped
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.targets.marks.columns import BriefMark, MarkColumns, Marks
from milan_pipeline.targets.marks.known import keep_known, read_known

REVOKED = "its mark is revoked: it was, or is, being written over"
NOT_DONE = "not done yet"
VIEW_NAME = re.compile(r"view-(\d\d+)")
"""See `view_name`."""


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
    """What the store records about a finished unit.

    Attributes:
        shard: name of the image shard.
        sha256: hash of the image shard when the targets were made.
        identity_hash: says what the targets are.
        view: number of the view, from 0.
        n: number of samples that have a target.
        skipped: `{key, reason}` for every image of the shard that has no target.
        objects: maps the path of every object of the unit to its xxh3-128.
        source_unit: `unit_sha256` of the unit in another store that this one was transcoded from;
            None for a unit that a teacher made.
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
        """Serialise the mark as JSON."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return indented_bytes(known) + b"\n"

    def brief(self) -> BriefMark:
        """Return the mark without its objects."""
        known = self.shard, self.sha256, self.identity_hash, self.view, self.n
        return BriefMark(*known, self.skipped, self.source_unit, unit_sha256(self))


AnyMark = Mark | BriefMark


def view_name(view: int) -> str:
    """Return the name of a view's group, such as `view-00`."""
    return f"view-{view:02d}"


def target_shard_name(unit: Unit) -> str:
    """Return the name of a unit's target shard; no image shard has the same basename."""
    return f"{view_name(unit.view)}/targets-v{unit.view:02d}-{unit.shard.stem}.tar"


def unit_sha256(mark: AnyMark) -> str:
    """Hash a unit's mark, which holds the hashes of all its objects."""
    if isinstance(mark, BriefMark):
        return mark.unit_sha256
    return hashlib.sha256(mark.to_bytes()).hexdigest()


def shard_details(unit: Unit, mark: AnyMark, identity_hash: str) -> dict[str, Any]:
    """Return what the manifest says of a target shard: its source and its identity."""
    return {
        "view": unit.view,
        "source": unit.shard.stem,
        "source_sha256": mark.sha256,
        "unit_sha256": unit_sha256(mark),
        "identity_hash": identity_hash,
        "skipped": mark.skipped,
    }


def read_marks(store_url: str, views: int, *, keep: bool = False) -> Marks:
    """Read all marks of the first `views` views, by mark path; lists one folder for each view.

    They come without their lists of objects, which only reading a unit needs (see `whole_mark`).
    Those that are known (see `marks.known`) are not read again.

    Args:
        store_url: the store.
        views: how many views to read.
        keep: whether to write down what many marks say, for the next time.

    Raises:
        DataError: a mark is damaged.
    """
    found = {}
    for view in map(view_name, range(views)):
        folder = storage.join(store_url, "done", view)
        stamps = storage.list_stamps(folder)
        known = read_known(store_url, view, stamps)
        new = known.lacking(list(stamps))
        if new:
            known = known.merged(MarkColumns.of(new, list(_brief_marks(folder, new))))
        if keep:
            keep_known(store_url, view, known, stamps, new=len(new))
        found[view] = known
    return Marks(found)


def marked_views(store_url: str) -> int:
    """Return how many views a store has up to the last one with a mark.

    Views before that may have none yet: parts of the work are done in any order.
    """
    found = map(VIEW_NAME.fullmatch, storage.list_names(storage.join(store_url, "done")))
    return max((1 + int(match[1]) for match in found if match), default=0)


def whole_mark(store_url: str, unit: Unit, mark: AnyMark) -> Mark:
    """Return a unit's mark with its list of objects, which is read unless it is there.

    Raises:
        DataError: the mark is damaged.
        MismatchError: the unit was written over since its mark was read.
    """
    if isinstance(mark, Mark):
        return mark
    found = read_mark(store_url, unit)
    if found is None or unit_sha256(found) != mark.unit_sha256:
        raise MismatchError(
            f"{storage.join(store_url, unit.mark_path)} has changed since this command began; run "
            "it again when no other command writes the store"
        )
    return found


def read_mark(store_url: str, unit: Unit) -> Mark | None:
    """Read one unit's mark; return None if it has none.

    Raises:
        DataError: the mark is damaged.
    """
    url = storage.join(store_url, unit.mark_path)
    try:
        return _parsed(url, storage.read_bytes(url))
    except MissingDataError:
        return None


def require_same_images(
    store_url: str, manifest: Manifest, marks: Mapping[str, AnyMark], remedy: str
) -> None:
    """Refuse image shards that only share their names with those that the store was made from.

    If some shards changed, their units are extracted again. If all of them changed, this is another
    data set.

    Raises:
        MismatchError: no mark is of one of these shards in its present state.
    """
    known = {mark.shard: mark.sha256 for mark in marks.values() if mark.identity_hash}
    shared = [shard for shard in manifest.shards if shard.name in known]
    if shared and all(shard.sha256 != known[shard.name] for shard in shared):
        name, now = shared[0].name, shared[0].sha256
        raise MismatchError(
            f"{store_url} holds targets of other images: {name} has the sha256 "
            f"{known[name][:12]}… there and {now[:12]}… here; {remedy}"
        )


def why_undone(unit: Unit, marks: Mapping[str, AnyMark], identity_hash: str) -> str | None:
    """Return why a unit must be done for the store's identity; None if it is done."""
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
    unit: Unit, marks: Mapping[str, AnyMark], identity_hash: str, source: AnyMark
) -> str | None:
    """Return why a unit must be transcoded again from another store; None if it is done.

    Args:
        unit: which one.
        marks: those of the store that is written.
        identity_hash: that of the store that is written.
        source: the mark of the unit in the other store.
    """
    mark = marks.get(unit.mark_path)  # once, as each look-up searches, and units may be millions
    if mark is None:
        return NOT_DONE
    reason = why_undone(unit, {unit.mark_path: mark}, identity_hash)
    if reason is None and mark.source_unit != unit_sha256(source):
        return "the unit that it was transcoded from has changed"
    return reason


def is_current(mark: AnyMark, unit: Unit, identity_hash: str) -> bool:
    """Tell whether a mark is of the unit's present shard and of the store's identity."""
    return why_undone(unit, {unit.mark_path: mark}, identity_hash) is None


def revoked(unit: Unit) -> Mark:
    """Return a mark for a unit that is being overwritten; with it, the unit counts as not done."""
    return Mark(
        shard=unit.shard.name, sha256="", identity_hash="", view=unit.view, n=0, skipped=[],
        objects={},
    )  # fmt: skip


def revoke(store_url: str, unit: Unit) -> None:
    """Overwrite a unit's mark, so that no process takes the unit for done."""
    storage.put_bytes(storage.join(store_url, unit.mark_path), revoked(unit).to_bytes())


def _brief_marks(folder: str, names: list[str]) -> Iterator[BriefMark]:
    """Read the marks of one folder, in the order of its names."""
    urls = [storage.join(folder, name) for name in names]
    with contextlib.closing(storage.read_many(urls)) as contents:
        for url, data in zip(urls, contents, strict=True):
            yield _parsed(url, data).brief()


def _parsed(url: str, data: bytes) -> Mark:
    try:
        return parsed(data, Mark)
    except DocumentError as error:
        raise DataError(f"{url} is damaged ({error}); delete it, and its unit is redone") from error
