"""Run `transcode`: fit the codec, do the units, and write the store's record.

This is separate from the options since it imports torch, which `--help` must not do.
"""

import contextlib
import logging

from milan_pipeline.cluster.spread import spread
from milan_pipeline.core.console import say, say_counts, say_nothing_to_do
from milan_pipeline.core.counting import counted, such
from milan_pipeline.core.devices import pick_device
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.errors import MissingDataError
from milan_pipeline.provenance.identity import Identity, content_hash, transcoded_identity
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import Reporter, closing_report
from milan_pipeline.stages.transcode.command import Transcode
from milan_pipeline.stages.transcode.plan import REMEDY, Done, Plan, make_plan
from milan_pipeline.targets.codec_files import read_store_codec, write_store_codec
from milan_pipeline.targets.layout import create_root
from milan_pipeline.targets.store_record import read_store_record, record_url
from milan_pipeline.targets.transcoding import KEPT, TranscodingSpec, new_codec

logger = logging.getLogger(__name__)


def transcode(config: Transcode, stop: StopRequest) -> None:
    """Do every unit that is not done.

    Raises:
        ConfigError, MissingDataError, MismatchError: the stores and options do not fit together.
        DataError: a unit is damaged, or cannot be encoded.
        InterruptedRunError: a stop was asked for; finished units are kept.
    """
    plan = make_plan(config)
    if plan.existing is not None and _nothing_to_do(config, plan):
        say_nothing_to_do(config.out, such(len(plan.units), "units", "done"))
        return
    if not config.on_dask:  # Dask workers have devices of their own
        pick_device(config.device)  # refuse a missing device before anything is written
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
    spec = TranscodingSpec(
        source=config.source,
        source_hash=content_hash(plan.identity),
        dest=config.out,
        dest_hash=content_hash(identity),
        device=config.device,
    )
    _do(config, spec, [(unit, mark) for unit, mark in plan.units if unit in left], stop)
    _finish(config, plan, record, done_now=len(left))


def _nothing_to_do(config: Transcode, plan: Plan) -> bool:
    """Tell whether the record is "done" for all these units, or for more views of them."""
    try:
        there = read_store_record(config.out, plan.wanted)
    except MissingDataError:
        return False
    is_same = {**there.extent, "views": plan.views} == plan.extent and there.views >= plan.views
    return there.state == "done" and is_same and not plan.left(config.out, plan.wanted)


def _record(config: Transcode, plan: Plan, identity: Identity) -> StageRecord:
    return StageRecord(
        url=record_url(config.out, "transcode"),
        stage="transcode",
        config=config,
        inputs={},
        content=identity,
        extent=plan.extent,
        source={"store": config.source, "extraction": plan.record.extraction},
    )


def _do(config: Transcode, spec: TranscodingSpec, units: list[Done], stop: StopRequest) -> None:
    """Transcode units, here or on workers."""
    reporter = Reporter(config.out, "transcode", units=len(units), stop=stop)
    done = spread(
        spec,
        units,
        stop,
        threads=config.workers,
        scheduler=config.scheduler,
        processes=config.processes,
    )
    total = sum(mark.n for _, mark in units)
    with (
        progress_bar("transcode", total=total, unit="targets") as bar,
        closing_report(reporter),
        contextlib.closing(done),
    ):
        if units:
            reporter.begin(units[0][0].path)
        for (unit, _), mark in done:
            reporter.begin(unit.path)
            logger.info("%s: %d targets", unit.path, mark.n)
            bar.update(mark.n)
            reporter.images(mark.n)
            reporter.end(unit.path)
            stop.raise_if_asked(KEPT)


def _finish(config: Transcode, plan: Plan, record: StageRecord, *, done_now: int) -> None:
    """Set the record to "done"; if the source is not finished, print what is missing."""
    missing = len(plan.record.units(plan.views)) - len(plan.units)
    if missing:
        said = f"{counted(done_now, 'units')} done now; " + such(
            missing, "units", f"not in {config.source} yet"
        )
        say(f"{config.out}: {said}", out=config.out, units_done_now=done_now, missing=missing)
        return
    counts = {
        "units": len(plan.units),
        "units_done_now": done_now,
        "targets": sum(mark.n for _, mark in plan.units),
        "skipped": sum(len(mark.skipped) for _, mark in plan.units),
    }
    record.finish(counts)
    say_counts(config.out, counts)
