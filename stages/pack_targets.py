"""`milan-pipeline pack-targets`: target store -> target shards that pretrain streams."""

import contextlib
import dataclasses
from collections.abc import Generator
from typing import TYPE_CHECKING

import click

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, MismatchError, MissingDataError
from milan_pipeline.identity import Identity, content_hash
from milan_pipeline.interrupts import stop_request
from milan_pipeline.manifest import Manifest, Shard
from milan_pipeline.options import option, stage_command
from milan_pipeline.packing import list_as_written, listed_shards
from milan_pipeline.parallel import ordered_map
from milan_pipeline.progress import progress_bar
from milan_pipeline.provenance import StageRecord, read_record
from milan_pipeline.units import (
    Mark,
    Unit,
    read_marks,
    target_shard_name,
    undone_units,
    unit_sha256,
    units_of_extent,
)

if TYPE_CHECKING:
    from milan_pipeline.target_records import RecordLayout

Plan = dict[str, tuple[Unit, Mark]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackTargets:
    """Pack a target store into tar shards, one for each image shard and view.

    The same store gives the same bytes. Killed, run it again: listed shards are kept.
    """

    targets: str = option(help="Target store that extract-targets wrote.", role="execution")
    out: str = option(help="Folder for the shards and manifest.json.", role="execution")
    views: int | None = option(None, help="Views to pack; default: all.", role="extent")
    workers: int = option(2, help="Threads, each writing one shard.", role="execution")
    allow_unfinished: bool = option(
        default=False, help="Pack a store whose extraction has not ended.", role="execution"
    )
    overwrite: bool = option(
        default=False, help="Replace shards of other targets.", role="execution"
    )

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"--workers {self.workers} is below 0; give 0 or more")
        if self.views is not None and self.views < 1:
            raise ConfigError(f"--views {self.views} is below 1; give at least 1")


def run(config: PackTargets) -> None:
    """Write every target shard that is not listed."""
    from milan_pipeline.target_store import read_identity

    storage.require_writable(config.out)
    identity = read_identity(config.targets)
    plan = _plan(config, identity)
    record = _record(config, identity, plan)
    state = record.previous_state()
    listed = _current(listed_shards(config.out, "targets"), plan)
    left = {name: unit for name, unit in plan.items() if name not in listed}
    if not left and state == "done":
        click.echo(f"{config.out}: nothing to do, {len(listed)} shards are there")
        return
    common = {"identity": identity, "identity_hash": content_hash(identity)}
    manifest = Manifest(
        kind="targets",
        folder=config.out,
        shards=tuple(listed.values()),
        complete=False,
        common=common,
    )
    # In this order: a record must never stand beside a manifest that lists other targets.
    manifest.save()
    record.begin()
    with stop_request() as stop:
        written = _written(config, _layout(identity), left)
        manifest = list_as_written(manifest, order=list(plan), written=written, stop=stop)
    counts = {
        "shards": len(manifest.shards),
        "targets": manifest.samples,
        "bytes": sum(shard.bytes for shard in manifest.shards),
    }
    record.finish(counts)
    click.echo(f"{config.out}: " + ", ".join(f"{value} {name}" for name, value in counts.items()))


def dry_run(config: PackTargets) -> None:
    """Say how many shards would be written and what they would take."""
    from milan_pipeline.dataset_size import stored_units
    from milan_pipeline.shard_size import ShardSize
    from milan_pipeline.target_store import read_identity

    storage.require_writable(config.out)
    identity = read_identity(config.targets)
    plan = _plan(config, identity)
    _record(config, identity, plan).previous_state()
    listed = _current(listed_shards(config.out, "targets"), plan)
    left = [unit for name, unit in plan.items() if name not in listed]
    units = stored_units(config.targets, left, workers=config.workers)
    size, targets = ShardSize(identity).units(units), sum(mark.n for _, mark in left)
    click.echo(f"shards to do: {len(left)}, done: {len(plan) - len(left)}")
    click.echo(
        f"bytes to write: {size} in tars and indices ({size / max(1, targets):.0f} a target), "
        f"free: {storage.free_text(config.out)}"
    )


def _plan(config: PackTargets, identity: Identity) -> Plan:
    """List the shards to have: name -> (unit, its mark), view by view.

    They are the units of the latest extraction; what else lies in the store was made from other
    shards, or is a view that nobody finished.
    """
    record = read_record(storage.join(config.targets, "extract-targets.json"))
    if record is None or not (config.allow_unfinished or record["state"] == "done"):
        raise MismatchError(
            f"{config.targets} is not finished; run extract-targets again, or --allow-unfinished"
        )
    views = int(record["extent"]["views"])
    wanted = config.views or views
    if wanted > views:
        raise MissingDataError(
            f"--views asks for {wanted}, {config.targets} has {views}; extract more"
        )
    units = units_of_extent(record["extent"], wanted)
    marks = read_marks(config.targets, wanted)
    left = undone_units(units, marks, content_hash(identity))
    if left and not config.allow_unfinished:
        unit, reason = next(iter(left.items()))
        raise MissingDataError(
            f"{config.targets} lacks {unit.path} ({reason}) and {len(left) - 1} more units; run "
            "extract-targets again"
        )
    return {
        target_shard_name(unit): (unit, marks[unit.mark_path]) for unit in units if unit not in left
    }


def _current(listed: dict[str, Shard], plan: Plan) -> dict[str, Shard]:
    """Keep the listed shards whose unit is still the one they were made of."""
    return {
        name: listed[name]
        for name, (_, mark) in plan.items()
        if name in listed and listed[name].details["unit_sha256"] == unit_sha256(mark)
    }


def _layout(identity: Identity) -> "RecordLayout":
    from milan_pipeline.target_records import layout_of

    return layout_of(identity)


def _written(
    config: PackTargets, layout: "RecordLayout", plan: Plan
) -> Generator[Shard, None, None]:
    from milan_pipeline.target_records import write_target_shard

    def write(item: tuple[str, tuple[Unit, Mark]]) -> Shard:
        name, (unit, mark) = item
        return write_target_shard(
            config.out, name, store=config.targets, unit=unit, mark=mark, layout=layout
        )

    shards = ordered_map(write, plan.items(), workers=config.workers, ahead=2 * config.workers)
    total = sum(mark.n for _, mark in plan.values())
    with contextlib.closing(shards), progress_bar("pack-targets", total=total) as bar:
        for shard in shards:
            bar.update(shard.samples)
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


command = stage_command("pack-targets", PackTargets, run=run, dry_run=dry_run)
