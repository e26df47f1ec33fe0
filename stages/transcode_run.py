"""What `transcode` does: settles the codec, does the units, keeps the store's record.

Apart from the options because it imports torch, which `--help` must not.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import click

from milan_pipeline import storage
from milan_pipeline.codec_files import (
    most_store_codec_bytes,
    read_store_codec,
    write_store_codec,
)
from milan_pipeline.codecs import CodecSpec, parse_codec, spec_of
from milan_pipeline.devices import pick_device
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.identity import Identity, content_hash, require_same, transcoded_identity
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.parallel import ordered_map
from milan_pipeline.progress import progress_bar
from milan_pipeline.provenance import StageRecord
from milan_pipeline.store_record import (
    StoreRecord,
    finished_units,
    read_store_record,
    record_url,
)
from milan_pipeline.store_size import KeyBytes, StoreSize
from milan_pipeline.target_store import create_root, read_identity
from milan_pipeline.transcoding import (
    KEPT,
    Recoder,
    Transcoding,
    code_shape,
    likely_identity_of,
    new_codec,
)
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import Mark, Unit, read_marks, why_not_transcoded
from milan_pipeline.work_reports import Reporter, closing_report
from stages.extract_plan import require_place
from stages.transcode import Transcode

REMEDY = "give another OUT for these targets, or --overwrite to make them anew"
Done = tuple[Unit, Mark]


class _Plan(NamedTuple):
    """What there is and what is wanted.

    Attributes:
        identity: of the store that is read.
        record: likewise.
        units: its finished units, those of the views that are wanted.
        views: how many those are.
        spec: the codec that is wanted.
        existing: identity of the store that is written, to be gone on with; None for a new one.
        wanted: what it will be, but for the hash of arrays that are not fitted yet.
    """

    identity: Identity
    record: StoreRecord
    units: list[Done]
    views: int
    spec: CodecSpec
    existing: Identity | None
    wanted: Identity

    @property
    def extent(self) -> dict[str, object]:
        """The full list of units, in the record's words."""
        return {**self.record.extent, "views": self.views}

    def left(self, out: str, identity: Identity) -> dict[Unit, str]:
        """Say which units are to be done in a store of an identity, and why."""
        marks, wanted = read_marks(out, self.views, objects=False), content_hash(identity)
        reasons = {
            unit: why_not_transcoded(unit, marks, wanted, source) for unit, source in self.units
        }
        return {unit: reason for unit, reason in reasons.items() if reason is not None}


def transcode(config: Transcode, stop: StopRequest) -> None:
    """Do every unit that is not done.

    Raises:
        ConfigError, MissingDataError, MismatchError: the stores and options do not fit together.
        DataError: a unit is damaged, or cannot be encoded.
        InterruptedRunError: a stop was asked for; finished units are kept.
    """
    plan = _plan(config)
    if plan.existing is not None and _nothing_to_do(config, plan):
        click.echo(f"{config.out}: nothing to do, {len(plan.units)} units are done")
        return
    source = read_store_codec(config.source, plan.identity)
    if plan.existing is None:
        codec = new_codec(config.source, plan.units, source, plan.spec, stop)
        write_store_codec(config.out, codec)
    else:
        codec = read_store_codec(config.out, plan.existing)
    identity = transcoded_identity(plan.identity, codec.parameters())
    create_root(config.out, identity, overwrite=config.overwrite, remedy=REMEDY)
    record = _record(config, plan, identity)
    record.begin()
    left = plan.left(config.out, identity)
    job = Transcoding(
        source=config.source,
        dest=config.out,
        identity_hash=content_hash(identity),
        recoder=Recoder(source=source, target=codec, device=pick_device(config.device)),
        shape=code_shape(identity),
    )
    _do(config, job, [(unit, mark) for unit, mark in plan.units if unit in left], stop)
    _finish(config, plan, record, done_now=len(left))


def describe(config: Transcode) -> None:
    """Say how many units are left and what they will take."""
    plan = _plan(config)
    left = plan.left(config.out, plan.wanted)
    click.echo(f"units to do: {len(left)}, done: {len(plan.units) - len(left)}")
    left_units = [(unit, mark) for unit, mark in plan.units if unit in left]
    targets = sum(mark.n for _, mark in left_units)
    size = _bytes_of(config, plan, left_units)
    is_exact = plan.existing is not None or not plan.spec.needs_fit
    about = "" if is_exact and not any(mark.skipped for _, mark in left_units) else "about "
    click.echo(
        f"bytes to write: {about}{size} ({size / max(1, targets):.0f} a target), "
        f"free: {storage.free_text(config.out)}"
    )


def _plan(config: Transcode) -> _Plan:
    require_place(config.out)
    if _is_one_place(config.source, config.out):
        raise ConfigError(f"OUT {config.out} is the store that is read; give another")
    identity = read_identity(config.source)
    record = read_store_record(config.source, identity)
    spec = parse_codec(config.codec).for_width(identity["teacher"]["width"])
    if spec == spec_of(identity["codec"]):
        raise ConfigError(
            f"--codec {config.codec} is what {config.source} is stored by already; give another, "
            "or take the store as it is"
        )
    existing = None
    if not config.overwrite and storage.exists(storage.join(config.out, "zarr.json")):
        existing = read_identity(config.out)
    wanted = likely_identity_of(identity, spec, existing)
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
    return _Plan(identity, record, units, views, spec, existing, wanted)


def _is_one_place(first: str, second: str) -> bool:
    here, there = storage.local_path(first), storage.local_path(second)
    if here is None or there is None:
        return first.rstrip("/") == second.rstrip("/")
    return here.resolve() == there.resolve()


def _nothing_to_do(config: Transcode, plan: _Plan) -> bool:
    """Tell whether the record says "done" of all these units, or of more views of them."""
    try:
        there = read_store_record(config.out, plan.wanted)
    except MissingDataError:
        return False
    is_same = {**there.extent, "views": plan.views} == plan.extent and there.views >= plan.views
    return there.state == "done" and is_same and not plan.left(config.out, plan.wanted)


def _record(config: Transcode, plan: _Plan, identity: Identity) -> StageRecord:
    return StageRecord(
        url=record_url(config.out, identity),
        stage="transcode",
        config=config,
        inputs={},
        content=identity,
        extent=plan.extent,
        source={"store": config.source, "extraction": plan.record.extraction},
    )


def _do(config: Transcode, job: Transcoding, units: list[Done], stop: StopRequest) -> None:
    """Transcode units in threads."""
    reporter = Reporter(config.out, "transcode", units=len(units))
    marks = ordered_map(
        lambda item: job.unit(*item, stop), units, workers=config.workers, ahead=2 * config.workers
    )
    total = sum(mark.n for _, mark in units)
    with (
        progress_bar("transcode", total=total, unit="targets") as bar,
        closing_report(reporter),
        contextlib.closing(marks),
    ):
        for unit, _ in units:
            reporter.begin(unit)
            mark = next(marks)
            bar.update(mark.n)
            reporter.images(mark.n)
            reporter.end(unit)
            stop.raise_if_asked(KEPT)


def _finish(config: Transcode, plan: _Plan, record: StageRecord, *, done_now: int) -> None:
    """Say that the store is done or, where the one that was read is not, what is missing."""
    missing = len(plan.record.units(plan.views)) - len(plan.units)
    if missing:
        click.echo(
            f"{config.out}: {done_now} units_done_now; {missing} units are not in {config.source} "
            "yet"
        )
        return
    counts = {
        "units": len(plan.units),
        "units_done_now": done_now,
        "targets": sum(mark.n for _, mark in plan.units),
        "skipped": sum(len(mark.skipped) for _, mark in plan.units),
    }
    record.finish(counts)
    click.echo(f"{config.out}: " + ", ".join(f"{value} {name}" for name, value in counts.items()))


def _bytes_of(config: Transcode, plan: _Plan, left: list[Done]) -> int:
    """Count what units will take in the store, and what is around them."""
    if not left:
        return 0
    store, width = StoreSize(plan.wanted), plan.identity["teacher"]["width"]
    codec = most_store_codec_bytes(plan.spec, width) if plan.existing is None else 0
    return store.units(_with_keys(config, left)) + store.groups(plan.views) + codec


def _with_keys(config: Transcode, units: list[Done]) -> Iterator[tuple[Unit, KeyBytes]]:
    """Yield units with what their keys take; a shard's are the same in every view."""
    one_view = {unit.shard.stem: (unit, mark) for unit, mark in units}

    def measured(item: Done) -> KeyBytes:
        keys = open_unit(config.source, *item)["key"][:]  # type: ignore[index]
        lengths = [len(str(key).encode()) for key in keys]  # type: ignore[union-attr]
        return KeyBytes(sum(lengths), max(lengths, default=0))

    workers = config.workers
    measures = ordered_map(measured, one_view.values(), workers=workers, ahead=2 * workers)
    with contextlib.closing(measures):
        known = dict(zip(one_view, measures, strict=True))
    for unit, _ in units:
        yield unit, known[unit.shard.stem]
