"""Write the target shards that are not listed yet, or print what that would take."""

import contextlib
import dataclasses
from collections.abc import Generator

from milan_pipeline import storage
from milan_pipeline.cluster.spread import spread
from milan_pipeline.core.console import bytes_text, say, say_counts, say_nothing_to_do
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.planning.dataset import stored_units
from milan_pipeline.planning.shard_size import ShardSize
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import Reporter, reporting
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.writer import delete_unlisted, list_as_written, listed_shards
from milan_pipeline.stages.pack_targets.codec import (
    ShardsThere,
    expected_identity,
    has_codec,
    settle,
    shards_there,
)
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.stages.pack_targets.phi_s import has_phi_s, settled_phi_s
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.own_folder import require_own_folder
from milan_pipeline.targets.codec_files import write_shards_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.marks.columns import BriefMark
from milan_pipeline.targets.packing import PackingSpec
from milan_pipeline.targets.store_record import finished_units, read_store_record
from milan_pipeline.targets.units import Unit, shard_details, target_shard_name, unit_sha256

Done = tuple[Unit, BriefMark]
Plan = dict[str, Done]


def pack(config: PackTargets, stop: StopRequest) -> None:
    """Write every target shard that is not listed, then the manifest and the record."""
    storage.require_writable(config.out)
    require_own_folder(config.out, "target shards")
    source = read_identity(config.targets)
    plan, there = _plan(config, source), shards_there(config.out)
    # Shards of other targets are refused before a codec is fitted.
    record = _record(config, expected_identity(config, source, there), plan)
    record.previous_state()
    units = list(plan.values())
    identity, codec = settle(config, source, there, units, stop)
    record = dataclasses.replace(record, content=identity)
    state = record.previous_state()
    listed = _current(config, there, identity, plan)
    left = {name: unit for name, unit in plan.items() if name not in listed}
    has_arrays = has_codec(config.out, identity) and has_phi_s(config, there, identity, units)
    if not left and state == "done" and has_arrays:
        say_nothing_to_do(config.out, f"{len(listed)} shards are there")
        return
    phi_s = settled_phi_s(config, source, there, identity, codec=codec, units=units, stop=stop)
    common = {"identity": identity, "identity_hash": content_hash(identity)} | phi_s
    manifest = Manifest(
        kind="targets",
        folder=config.out,
        shards=tuple(listed.values()),
        complete=False,
        common=common,
    )
    if config.overwrite:
        delete_unlisted(config.out, "targets", plan.keys())
    # In this order: a manifest must not name a codec (or PHI-S) that is not there yet, and a record
    # must not lie beside a manifest of other targets.
    write_shards_codec(config.out, codec)
    manifest.save()
    record.begin()
    with reporting(config.out, "pack-targets", stop, units=len(plan), done=len(listed)) as reporter:
        written = _written(config, source, identity, list(left.values()), stop, reporter=reporter)
        manifest = list_as_written(manifest, order=list(plan), written=written, stop=stop)
        counts = {
            "shards": len(manifest.shards),
            "targets": manifest.samples,
            "bytes": sum(shard.bytes for shard in manifest.shards),
        }
        record.finish(counts)
    say_counts(config.out, counts)


def describe(config: PackTargets) -> None:
    """Print how many shards would be written and how many bytes they would take."""
    storage.require_writable(config.out)
    require_own_folder(config.out, "target shards")
    source = read_identity(config.targets)
    plan, there = _plan(config, source), shards_there(config.out)
    identity = expected_identity(config, source, there)
    _record(config, identity, plan).previous_state()
    listed = _current(config, there, identity, plan)
    left = [unit for name, unit in plan.items() if name not in listed]
    units = stored_units(config.targets, left, workers=config.workers)
    size, targets = ShardSize(identity).units(units), sum(mark.n for _, mark in left)
    done = len(plan) - len(left)
    say(f"shards to do: {len(left)}, done: {done}", shards_to_do=len(left), shards_done=done)
    if not has_phi_s(config, there, identity, plan.values()):
        say("PHI-S is to be fitted", fits_phi_s=True)
    text = f"{bytes_text(size)} in tars and indices, {size / max(1, targets):.0f} a target"
    say_bytes_to_write(config.out, text, size, targets=targets)


def is_done(config: PackTargets) -> bool:
    """Tell whether every shard of a finished store is listed.

    Raises:
        MissingDataError, MismatchError: there is no such store, or --out has other targets.
    """
    source = read_identity(config.targets)
    plan, there = _plan(config, source), shards_there(config.out)
    identity, units = expected_identity(config, source, there), plan.values()
    state = _record(config, identity, plan).previous_state()
    listed = _current(config, there, identity, plan)
    has_arrays = has_codec(config.out, identity) and has_phi_s(config, there, identity, units)
    return state == "done" and listed.keys() == plan.keys() and has_arrays


def _plan(config: PackTargets, source: Identity) -> Plan:
    """List all shards that there must be: name -> (unit, its mark), view by view."""
    units = finished_units(
        config.targets,
        source,
        read_store_record(config.targets, source),
        views=config.views,
        allow_unfinished=config.allow_unfinished,
    )
    return {target_shard_name(unit): (unit, mark) for unit, mark in units}


def _current(
    config: PackTargets, there: ShardsThere | None, identity: Identity, plan: Plan
) -> dict[str, Shard]:
    """Return the listed shards of this identity, made from the present units, that may stay."""
    if config.overwrite or there is None or there.identity != identity:
        return {}
    listed, known = listed_shards(config.out, "targets"), content_hash(identity)
    return {
        name: listed[name]
        for name, (unit, mark) in plan.items()
        if name in listed and listed[name].details == shard_details(unit, mark, known)
    }


def _written(
    config: PackTargets,
    source: Identity,
    identity: Identity,
    units: list[Done],
    stop: StopRequest,
    *,
    reporter: Reporter,
) -> Generator[Shard, None, None]:
    """Have shards written, here or on workers, and yield each one when it is written."""
    spec = PackingSpec(
        store=config.targets,
        store_hash=content_hash(source),
        folder=config.out,
        folder_hash=content_hash(identity),
        device=config.device,
    )
    shards = spread(
        spec,
        units,
        stop,
        threads=config.workers,
        scheduler=config.scheduler,
        processes=config.processes,
    )
    total = sum(mark.n for _, mark in units)
    with contextlib.closing(shards), progress_bar("pack-targets", total=total) as bar:
        for _, shard in shards:
            bar.update(shard.samples)
            reporter.step(shard.samples)
            yield shard


def _record(config: PackTargets, identity: Identity, plan: Plan) -> StageRecord:
    return StageRecord(
        url=storage.join(config.out, "pack-targets.json"),
        stage="pack-targets",
        config=config,
        inputs={},
        content=identity,
        extent={"units": {unit.path: unit_sha256(mark) for unit, mark in plan.values()}},
    )
