"""The record of a target store, and its finished units; loads no torch.

The record is that of extract-targets or of transcode, whichever stage wrote the store.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, conforming
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.provenance.identity import TRANSCODED_FROM, Identity, content_hash
from milan_pipeline.provenance.record import ended_at, read_record
from milan_pipeline.targets.unit_list import (
    FinishedUnits,
    UnitList,
    require_extent,
    undone_units,
    units_of_extent,
)
from milan_pipeline.targets.units import read_marks


class _Source(TypedDict):
    extraction: dict[str, Any]


class StoreRecord(NamedTuple):
    """What the record of a store says.

    Attributes:
        stage: the stage that wrote the store: extract-targets or transcode.
        state: running or done.
        ended: when it ended, if it is done.
        extent: the full list of units; see `unit_list.extent_of`.
        extraction: the options of the extract-targets run that made the original targets, however
            often they were transcoded since.
    """

    stage: str
    state: str
    ended: str | None
    extent: Mapping[str, Any]
    extraction: Mapping[str, Any]

    @property
    def is_transcoded(self) -> bool:
        """Whether the codes were made from other targets and not by a teacher."""
        return self.stage == "transcode"

    @property
    def views(self) -> int:
        """How many views there are."""
        return int(self.extent["views"])

    def units(self, views: int | None = None) -> UnitList:
        """List the units of the first views, or of all."""
        return units_of_extent(self.extent, self.views if views is None else views)


def stage_of(identity: Identity) -> str:
    """Return the stage that writes targets of an identity; its record is the valid one.

    If one stage overwrote a store of the other, the records of both stages may lie in the store.
    """
    return "transcode" if TRANSCODED_FROM in identity else "extract-targets"


def record_url(url: str, stage: str) -> str:
    """Return the URL of the record that a stage writes into a store."""
    return storage.join(url, f"{stage}.json")


def read_store_record(url: str, identity: Identity) -> StoreRecord:
    """Read the record of a store.

    Raises:
        MissingDataError: there is no record.
        DataError: the record is damaged.
    """
    stage = stage_of(identity)
    place = record_url(url, stage)
    record = read_record(place)
    if record is None:
        raise MissingDataError(
            f"{place} does not exist, which says what the store should hold; run {stage} again"
        )
    try:
        extent = require_extent(record["extent"])
        source = record["source"] if stage == "transcode" else {"extraction": record["config"]}
        extraction = conforming(source, _Source)["extraction"]
        return StoreRecord(stage, record["state"], ended_at(record), extent, extraction)
    except (KeyError, DocumentError) as error:
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
) -> FinishedUnits:
    """List the units of a finished store with their marks, view by view.

    Only units that the record lists count. Any others were made from other image shards, or belong
    to a view that was not finished.

    Args:
        url: the store.
        identity: that of the store.
        record: that of the store.
        views: how many views to list; None for all.
        allow_unfinished: whether to accept a store that is not finished, and list what is.

    Raises:
        MismatchError: the store is not finished.
        MissingDataError: the store lacks views or units.
    """
    again = f"run {record.stage} again"
    if not (allow_unfinished or record.state == "done"):
        raise MismatchError(f"{url} is not finished; {again}, or --allow-unfinished")
    wanted = views or record.views
    if wanted > record.views:
        raise MissingDataError(f"--views asks for {wanted}, {url} has {record.views}; extract more")
    units = record.units(wanted)
    marks = read_marks(url, wanted)
    finished = FinishedUnits(units, marks, content_hash(identity))
    if len(finished) < len(units) and not allow_unfinished:
        left = undone_units(units, marks, content_hash(identity))
        unit, reason = next(iter(left.items()))
        more = f" and {len(left) - 1} more units" if len(left) > 1 else ""
        raise MissingDataError(f"{url} lacks {unit.path} ({reason}){more}; {again}")
    return finished
