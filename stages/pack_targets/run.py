"""Write the target shards that are not listed yet, or print what that would take."""

import contextlib
import dataclasses
import itertools
from collections.abc import Collection, Generator

import numpy as np
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.cluster.spread import spread
from milan_pipeline.core.console import bytes_text, say, say_counts, say_nothing_to_do
from milan_pipeline.core.counting import such
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.planning.dataset import stored_units
from milan_pipeline.planning.shard_size import ShardSize
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import Reporter, reporting
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.shards.writer import delete_unlisted, list_as_written
from milan_pipeline.stages.pack_targets.codec import (
    expected_identity,
    has_codec,
    settle,
)
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.stages.pack_targets.phi_s import has_phi_s, settled_phi_s
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.own_folder import require_own_folder
from milan_pipeline.targets.codec_files import write_shards_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.marks.columns import BriefMark
from milan_pipeline.targets.packed import ShardsThere, read_shards_there
from milan_pipeline.targets.packing import PackingSpec
from milan_pipeline.targets.store_record import finished_units, read_store_record
from milan_pipeline.targets.unit_list import FinishedUnits
from milan_pipeline.targets.units import Unit, target_shard_name

Done = tuple[Unit, BriefMark]


def pack(config: PackTargets, stop: StopRequest) -> None:
    """Write every target shard that is not listed, then the manifest and the record."""
    storage.require_writable(config.out)
    require_own_folder(config.out, "target shards")
    source = read_identity(config.targets)
    units = _units(config, source)
    there = _shards_there(config, units)
    # Shards of other targets are refused before a codec is fitted.
    record = _record(config, expected_identity(config, source, there), units)
    record.previous_state()
    identity, codec = settle(config, source, there, units, stop)
    record = dataclasses.replace(record, content=identity)
    state = record.previous_state()
    is_packed_f = _packed(there, identity, units)
    has_arrays = has_codec(config.out, identity) and has_phi_s(config, there, identity, units)
    if is_packed_f.all() and state == "done" and has_arrays:
        say_nothing_to_do(config.out, such(len(units), "shards", "there"))
        return
    phi_s = settled_phi_s(config, source, there, identity, codec=codec, units=units, stop=stop)
    names = [target_shard_name(unit) for unit, _ in units]
    manifest = Manifest(
        kind="targets",
        folder=config.out,
        shards=_kept(config.out, set(itertools.compress(names, is_packed_f))),
        complete=False,
        common={"identity": identity, "identity_hash": content_hash(identity)} | phi_s,
    )
    if config.overwrite:
        delete_unlisted(config.out, "targets", set(names))
    # In this order: a manifest must not name a codec (or PHI-S) that is not there yet, and a record
    # must not lie beside a manifest of other targets.
    write_shards_codec(config.out, codec)
    manifest.save()
    record.begin()
    done = len(manifest.shards)
    with reporting(config.out, "pack-targets", stop, units=len(units), done=done) as reporter:
        left = _left(units, is_packed_f)
        written = _written(config, source, identity, left, stop, reporter=reporter)
        manifest = list_as_written(manifest, order=names, written=written, stop=stop)
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
    units = _units(config, source)
    there = _shards_there(config, units)
    identity = expected_identity(config, source, there)
    _record(config, identity, units).previous_state()
    left = _left(units, _packed(there, identity, units))
    sizes = stored_units(config.targets, left, workers=config.workers)
    size, targets = ShardSize(identity).units(sizes), sum(mark.n for _, mark in left)
    done = len(units) - len(left)
    say(f"shards to do: {len(left)}, done: {done}", shards_to_do=len(left), shards_done=done)
    if not has_phi_s(config, there, identity, units):
        say("PHI-S is to be fitted", fits_phi_s=True)
    text = f"{bytes_text(size)} in tars and indices, {size / max(1, targets):.0f} a target"
    say_bytes_to_write(config.out, text, size, targets=targets)


def is_done(config: PackTargets) -> bool:
    """Tell whether every shard of a finished store is listed.

    Raises:
        MissingDataError, MismatchError: there is no such store, or --out has other targets.
    """
    source = read_identity(config.targets)
    units = _units(config, source)
    there = _shards_there(config, units)
    identity = expected_identity(config, source, there)
    state = _record(config, identity, units).previous_state()
    is_whole = bool(_packed(there, identity, units).all())
    has_arrays = has_codec(config.out, identity) and has_phi_s(config, there, identity, units)
    return state == "done" and is_whole and has_arrays


def _units(config: PackTargets, source: Identity) -> FinishedUnits:
    """List the units of which there must be a shard, view by view."""
    return finished_units(
        config.targets,
        source,
        read_store_record(config.targets, source),
        views=config.views,
        allow_unfinished=config.allow_unfinished,
    )


def _shards_there(config: PackTargets, units: FinishedUnits) -> ShardsThere | None:
    """Read which shards there are; None if there are none, or they are to go."""
    return None if config.overwrite else read_shards_there(config.out, units)


def _packed(
    there: ShardsThere | None, identity: Identity, units: FinishedUnits
) -> NDArray[np.bool_]:
    """Tell which units have a shard that may stay."""
    return np.zeros(len(units), np.bool_) if there is None else there.packed(identity)


def _left(units: FinishedUnits, is_packed_f: NDArray[np.bool_]) -> list[Done]:
    return [units[number] for number in np.flatnonzero(~is_packed_f).tolist()]


def _kept(folder: str, names: Collection[str]) -> tuple[Shard, ...]:
    """Return the listed shards that stay."""
    if not names:
        return ()
    listed = load_manifest(folder, kind="targets", allow_unfinished=True).shards
    return tuple(shard for shard in listed if shard.name in names)


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


def _record(config: PackTargets, identity: Identity, units: FinishedUnits) -> StageRecord:
    return StageRecord(
        url=storage.join(config.out, "pack-targets.json"),
        stage="pack-targets",
        config=config,
        inputs={},
        content=identity,
        extent={"units": len(units)},
    )
