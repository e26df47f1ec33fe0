"""Plan `transcode`: the stores, the codec, and the units that are left.

This is separate from the options since it imports torch, which `--help` must not do.
"""

from typing import NamedTuple

from milan_pipeline import storage
from milan_pipeline.codecs.registry import CodecSpec, parse_codec, spec_of
from milan_pipeline.core.console import bytes_text, say
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.planning.dataset import stored_units
from milan_pipeline.planning.store_size import StoreSize
from milan_pipeline.provenance.identity import Identity, content_hash, require_same
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write, say_files_to_write
from milan_pipeline.stages.shared.own_folder import require_own_folder
from milan_pipeline.stages.transcode.command import Transcode
from milan_pipeline.targets.expected_identity import expected_transcoded
from milan_pipeline.targets.layout import (
    STORE_RECORDS,
    existing_identity,
    read_identity,
    require_place,
)
from milan_pipeline.targets.marks.columns import BriefMark
from milan_pipeline.targets.store_record import StoreRecord, finished_units, read_store_record
from milan_pipeline.targets.unit_list import FinishedUnits
from milan_pipeline.targets.units import NOT_DONE, Unit, read_marks, why_not_transcoded

REMEDY = "give another OUT for these targets, or --overwrite to make them anew"
Done = tuple[Unit, BriefMark]


class Plan(NamedTuple):
    """The store that is read, and the store that is written.

    Attributes:
        identity: identity of the store that is read.
        record: its record.
        units: its finished units of the wanted views.
        views: number of wanted views.
        spec: the wanted codec.
        existing: identity of an existing store that is continued; None for a new one.
        wanted: identity of the store that is written; the hash of arrays that are not fitted yet is
            a stand-in.
    """

    identity: Identity
    record: StoreRecord
    units: FinishedUnits
    views: int
    spec: CodecSpec
    existing: Identity | None
    wanted: Identity

    @property
    def extent(self) -> dict[str, object]:
        """The full list of units, as the record has it."""
        return {**self.record.extent, "views": self.views}

    def left(self, out: str, identity: Identity) -> dict[Unit, str]:
        """Return which units must be done in a store of an identity, and why."""
        marks, wanted = read_marks(out, self.views), content_hash(identity)
        reasons = (
            (unit, why_not_transcoded(unit, marks, wanted, source)) for unit, source in self.units
        )
        return {unit: reason for unit, reason in reasons if reason is not None}


def describe(config: Transcode) -> None:
    """Print how many units are left and how many bytes they will take."""
    plan = make_plan(config)
    left = plan.left(config.out, plan.wanted)
    done = len(plan.units) - len(left)
    say(f"units to do: {len(left)}, done: {done}", units_to_do=len(left), units_done=done)
    stale = {unit.path: reason for unit, reason in left.items() if reason != NOT_DONE}
    for path, reason in stale.items():
        say(f"  {path}: {reason}", stale=stale)
    left_units = [(unit, mark) for unit, mark in plan.units if unit in left]
    targets = sum(mark.n for _, mark in left_units)
    size = _bytes_of(config, plan, left_units)
    skipped = any(mark.skipped for _, mark in left_units)
    about = "about " if left and (plan.spec.needs_fit or skipped) else ""
    text = f"{about}{bytes_text(size)}, {size / max(1, targets):.0f} a target"
    say_bytes_to_write(config.out, text, size, targets=targets)
    files = StoreSize(plan.wanted).files(left)
    say_files_to_write(config.out, files)


def make_plan(config: Transcode) -> Plan:
    """Read the stores and decide what must be done.

    Raises:
        ConfigError, DataError, MissingDataError, MismatchError: the stores and options do not fit
            together.
    """
    require_place(config.out)
    require_own_folder(config.out, "target store")
    if _is_one_place(config.source, config.out):
        raise ConfigError(f"OUT {config.out} is the store that is read; give another")
    existing = _existing(config)
    identity = read_identity(config.source)
    record = read_store_record(config.source, identity)
    spec = parse_codec(config.codec).for_width(identity["teacher"]["width"])
    if spec.asks_for(spec_of(identity["codec"])):
        raise ConfigError(
            f"--codec {config.codec} is already the codec of {config.source}; give another, or "
            "use the store as it is"
        )
    wanted = expected_transcoded(identity, spec, existing)
    if existing is not None:
        require_same(existing, wanted, what=config.out, remedy=REMEDY)
    units = finished_units(
        config.source,
        identity,
        record,
        views=config.views,
        allow_unfinished=config.allow_unfinished,
    )
    views = config.views or record.views
    return Plan(identity, record, units, views, spec, existing, wanted)


def _existing(config: Transcode) -> Identity | None:
    """Return the identity of targets that may stay; raises where a copy must not replace them."""
    try:
        there = existing_identity(config.out)
    except DataError:  # damaged, or a copy that another version made
        records = [storage.exists(storage.join(config.out, name)) for name in STORE_RECORDS]
        if config.overwrite and records == [False, True]:
            return None
        raise
    if there is not None and "transcoded_from" not in there:
        raise ConfigError(
            f"OUT {config.out} holds targets that a teacher computed, which a copy would replace; "
            "give another OUT"
        )
    return None if config.overwrite else there


def _is_one_place(first: str, second: str) -> bool:
    here, there = storage.local_path(first), storage.local_path(second)
    if here is None or there is None:
        return first.rstrip("/") == second.rstrip("/")
    return here.resolve() == there.resolve()


def _bytes_of(config: Transcode, plan: Plan, left: list[Done]) -> int:
    """Count the bytes of units in the store, and of the groups around them."""
    if not left:
        return 0
    store, units = StoreSize(plan.wanted), stored_units(config.source, left, workers=config.workers)
    return store.units(units) + store.groups(plan.views)
