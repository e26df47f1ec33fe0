"""The record of a target store, whichever stage wrote it, and the finished units that it lists."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from milan_pipeline import storage
from milan_pipeline.documents import MISSHAPEN, conforming
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.identity import TRANSCODED_FROM, Identity, content_hash
from milan_pipeline.provenance import read_record
from milan_pipeline.units import (
    Mark,
    Unit,
    read_marks,
    require_extent,
    undone_units,
    units_of_extent,
)


class _Source(TypedDict):
    extraction: dict[str, Any]


class StoreRecord(NamedTuple):
    """What the record of a store says.

    Attributes:
        stage: that wrote the store: extract-targets or transcode.
        state: running or done.
        extent: the full list of units; see `units.extent_of`.
        extraction: options of the extract-targets that the targets come from, however often they
            were transcoded since.
    """

    stage: str
    state: str
    extent: Mapping[str, Any]
    extraction: Mapping[str, Any]

    @property
    def is_transcoded(self) -> bool:
        """Whether no teacher made these very codes."""
        return self.stage == "transcode"

    @property
    def views(self) -> int:
        """How many views there are."""
        return int(self.extent["views"])

    def units(self, views: int | None = None) -> list[Unit]:
        """List the units of the first views, or of all."""
        return units_of_extent(self.extent, self.views if views is None else views)


def stage_of(identity: Identity) -> str:
    """Name the stage that writes targets of an identity, whose record then counts.

    Where the root was overwritten by the other one, that one's record may lie beside it.
    """
    return "transcode" if TRANSCODED_FROM in identity else "extract-targets"


def record_url(url: str, identity: Identity) -> str:
    """Say where the record of a store of this identity is."""
    return storage.join(url, f"{stage_of(identity)}.json")


def read_store_record(url: str, identity: Identity) -> StoreRecord:
    """Read the record of a store.

    Raises:
        MissingDataError: there is none.
        DataError: it is damaged.
    """
    stage, place = stage_of(identity), record_url(url, identity)
    record = read_record(place)
    if record is None:
        raise MissingDataError(
            f"{place} does not exist, which says what the store should hold; run {stage} again"
        )
    source = record.get("source", {"extraction": record.get("config", {})})
    try:
        extent = require_extent(record["extent"])
        return StoreRecord(
            stage, record["state"], extent, conforming(source, _Source)["extraction"]
        )
    except MISSHAPEN as error:
        raise DataError(
            f"{place} does not say what the store should hold ({error}); run {stage} again"
        ) from error


def finished_units(
    url: str,
    identity: Identity,
    record: StoreRecord,
    *,
    views: int | None,
    allow_unfinished: bool,
) -> list[tuple[Unit, Mark]]:
    """List the units of a finished store with their marks, view by view.

    They are those of its record; what else lies in the store was made from other shards, or is a
    view that nobody finished.

    Args:
        url: the store.
        identity: of the store.
        record: of the store.
        views: how many to list; None for all.
        allow_unfinished: take an unfinished store's finished units.

    Raises:
        MismatchError: the store is not finished.
        MissingDataError: it lacks views or units.
    """
    again = f"run {record.stage} again"
    if not (allow_unfinished or record.state == "done"):
        raise MismatchError(f"{url} is not finished; {again}, or --allow-unfinished")
    wanted = views or record.views
    if wanted > record.views:
        raise MissingDataError(f"--views asks for {wanted}, {url} has {record.views}; extract more")
    units = record.units(wanted)
    marks = read_marks(url, wanted)
    left = undone_units(units, marks, content_hash(identity))
    if left and not allow_unfinished:
        unit, reason = next(iter(left.items()))
        raise MissingDataError(
            f"{url} lacks {unit.path} ({reason}) and {len(left) - 1} more units; {again}"
        )
    return [(unit, marks[unit.mark_path]) for unit in units if unit not in left]
