"""What `extract-targets` settles from its options: the job, what is left of it, and doing it.

Apart from the options because it imports torch, which `--help` must not.
"""

from collections import Counter

import click

from milan_pipeline import storage
from milan_pipeline.codecs import Codec, make_codec
from milan_pipeline.dataset_size import listed_dataset
from milan_pipeline.devices import pick_device
from milan_pipeline.extraction import ExtractionJob, extract_units
from milan_pipeline.identity import Identity, build_identity, content_hash, require_same
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.ledger import BadImageBudget
from milan_pipeline.manifest import Manifest, load_manifest, require_unique_stems
from milan_pipeline.precision import settle_precision
from milan_pipeline.provenance import StageRecord
from milan_pipeline.store_size import StoreSize, likely_identity
from milan_pipeline.target_store import create_root, read_identity
from milan_pipeline.teacher import Teacher, visible_identity
from milan_pipeline.teacher_spec import TeacherSpec
from milan_pipeline.units import (
    Mark,
    Unit,
    extent_of,
    list_units,
    read_marks,
    require_same_images,
    undone_units,
)
from stages.extract_targets import ExtractTargets


def extract(config: ExtractTargets, stop: StopRequest) -> None:
    """Do every unit that is not done.

    Raises:
        InterruptedRunError: a stop was asked for; finished units are kept.
    """
    manifest = load_images(config)
    device = str(pick_device(config.device))
    teacher = Teacher.load(_settled(config), device=device, compile=config.compile)
    identity = identity_of(config, teacher)
    create_root(config.out, identity, overwrite=config.overwrite)
    units = list_units(manifest, config.views)
    marks = _marks(config, manifest)
    left = undone_units(units, marks, content_hash(identity))
    record = _record(config, identity, manifest)
    if not left and record.previous_state() == "done":
        click.echo(f"{config.out}: nothing to do, {len(units)} units are done")
        return
    record.begin()
    job = job_of(config, manifest, teacher, identity)
    budget = BadImageBudget(fraction=config.max_bad_fraction, images=manifest.samples)
    done = [marks[unit.mark_path] for unit in units if unit not in left]
    for mark in done:
        budget.add(mark.shard, mark.skipped)
    done += extract_units(job, list(left), budget, stop)
    counts = {
        "units": len(units),
        "units_done_now": len(left),
        "targets": sum(mark.n for mark in done),
        "skipped": sum(len(mark.skipped) for mark in done),
    }
    record.finish(counts)
    click.echo(f"{config.out}: " + ", ".join(f"{value} {name}" for name, value in counts.items()))


def describe(config: ExtractTargets) -> None:
    """Say what is left and what it will take, from the teacher's configuration alone."""
    manifest = load_images(config)
    codec = make_codec(config.codec)
    units = list_units(manifest, config.views)
    left = dict.fromkeys(units, "not done yet")
    if storage.exists(storage.join(config.out, "zarr.json")):
        existing = read_identity(config.out)
        wanted = _visible_identity(config, existing, codec)
        if not config.overwrite:
            remedy = "give another --out for these targets, or --overwrite to extract them anew"
            require_same(existing, wanted, what=config.out, remedy=remedy)
        left = undone_units(units, _marks(config, manifest), content_hash(wanted))
    else:
        wanted = likely_identity(visible_identity(_settled(config)), config.policy, codec)
    keys = {shard.name: keys for shard, keys in listed_dataset(manifest).shards}
    store = StoreSize(wanted)
    size = store.units((unit, keys[unit.shard.name]) for unit in left)
    record = _record(config, wanted, manifest)
    size += store.groups(config.views) + len(record.to_bytes("done", {})) if left else 0
    click.echo(f"units to do: {len(left)}, done: {len(units) - len(left)}")
    for reason, count in sorted(Counter(left.values()).items()):
        click.echo(f"  {count}: {reason}")
    click.echo(f"images to run through the teacher: {_samples(list(left))}")
    click.echo(
        f"bytes to write: about {size} ({size / max(1, _samples(list(left))):.0f} a target), "
        f"free: {storage.free_bytes(config.out)}"
    )


def load_images(config: ExtractTargets) -> Manifest:
    """Read the manifest of the image shards, whose names must tell their units apart."""
    manifest = load_manifest(config.images, kind="images")
    require_unique_stems(manifest.shards)
    return manifest


def identity_of(config: ExtractTargets, teacher: Teacher) -> Identity:
    """Say what the targets will be."""
    return build_identity(
        teacher=teacher.identity(),
        preprocessing=teacher.preprocessing(),
        view_policy=config.policy.as_dict(),
        codec=make_codec(config.codec).parameters(),
    )


def job_of(
    config: ExtractTargets, manifest: Manifest, teacher: Teacher, identity: Identity
) -> ExtractionJob:
    """Put together what the loop needs."""
    return ExtractionJob(
        manifest=manifest,
        store=config.out,
        identity_hash=content_hash(identity),
        teacher=teacher,
        policy=config.policy,
        codec=make_codec(config.codec),
        batch_size=config.batch_size,
        workers=config.workers,
    )


def _marks(config: ExtractTargets, manifest: Manifest) -> dict[str, Mark]:
    """Read the store's marks, and refuse a store of other images."""
    marks = read_marks(config.out, config.views)
    if not config.overwrite:
        remedy = "give another --out for these images, or --overwrite to extract them anew"
        require_same_images(config.out, manifest, marks, remedy)
    return marks


def _samples(units: list[Unit]) -> int:
    return sum(unit.shard.samples for unit in units)


def _settled(config: ExtractTargets) -> TeacherSpec:
    """Settle a precision of "auto": an existing store's, unless it is to be overwritten."""
    goes_on = not config.overwrite and storage.exists(storage.join(config.out, "zarr.json"))
    existing = read_identity(config.out)["teacher"]["precision"] if goes_on else None
    return settle_precision(config.teacher_spec, pick_device(config.device), existing=existing)


def _visible_identity(config: ExtractTargets, existing: Identity, codec: Codec) -> Identity:
    """Put what is known without the teacher's weights into the place of what a store has there."""
    known = visible_identity(_settled(config))
    return existing | {
        "teacher": existing["teacher"] | known["teacher"],
        "preprocessing": existing["preprocessing"] | known["preprocessing"],
        "view_policy": config.policy.as_dict(),
        "codec": codec.parameters(),
    }


def _record(config: ExtractTargets, identity: Identity, manifest: Manifest) -> StageRecord:
    return StageRecord(
        url=storage.join(config.out, "extract-targets.json"),
        stage="extract-targets",
        config=config,
        inputs={},
        content=identity,
        extent=extent_of(manifest, config.views),
    )
