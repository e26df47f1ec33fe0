"""Plan `extract-targets`: the job, which units are left, and why.

This is separate from the options since it imports torch, which `--help` must not do.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from milan_pipeline.cli.options import AUTO
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.core.console import bytes_text, say
from milan_pipeline.core.devices import device_of_process, pick_devices
from milan_pipeline.errors import ConfigError
from milan_pipeline.extraction.spec import JobSpec
from milan_pipeline.planning.dataset import listed_dataset
from milan_pipeline.planning.store_size import StoreSize
from milan_pipeline.provenance.identity import Identity, content_hash, require_same
from milan_pipeline.provenance.record import StageRecord, read_record
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.stages.extract_targets.command import USUAL_BATCH, ExtractTargets
from milan_pipeline.stages.extract_targets.views import settled_views
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write, say_files_to_write
from milan_pipeline.stages.shared.own_folder import require_own_folder
from milan_pipeline.targets.expected_identity import expected_extracted
from milan_pipeline.targets.layout import ANOTHER_STORE, existing_identity, require_place
from milan_pipeline.targets.store_record import record_url
from milan_pipeline.targets.unit_list import (
    FinishedUnits,
    UnitList,
    extent_of,
    list_units,
    undone_units,
)
from milan_pipeline.targets.units import NOT_DONE, Unit, read_marks, require_same_images, view_name
from milan_pipeline.teacher.description import settle_precision, visible_identity
from milan_pipeline.teacher.load_by_name import require_weights
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.weights import weights_file


class WorkList(NamedTuple):
    """The full list of units, this process's units, all that are done, and all that are left."""

    units: UnitList
    own: Sequence[Unit]
    done: FinishedUnits
    left: dict[Unit, str]

    @property
    def own_left(self) -> dict[Unit, str]:
        """This process's units that are left to do, each with the reason."""
        if self.own is self.units:
            return self.left
        return {unit: self.left[unit] for unit in self.own if unit in self.left}


def describe(config: ExtractTargets) -> None:
    """Print what is left and what it will take, without loading the teacher's weights."""
    config = settled_views(config)
    spec = spec_of(config)
    manifest, work, wanted = survey(config, spec)
    weights_file(spec.teacher)  # whose absence would end the run at its beginning
    say_teacher(config, spec.teacher)
    left = work.own_left
    done, all_left = len(work.own) - len(left), len(work.left)
    said = f"units to do: {len(left)}, done: {done}{_of_all(config, work)}"
    say(said, units_to_do=len(left), units_done=done, units_to_do_in_all_parts=all_left)
    reasons = _reasons(left)
    for line in reasons:
        say(f"  {line}", reasons=reasons)
    images, size = samples_of(left), _bytes_of(config, manifest, wanted, left)
    say(f"images to run through the teacher: {images}", images_to_do=images)
    text = f"about {bytes_text(size)}, {size / max(1, images):.0f} a target"
    say_bytes_to_write(config.out, text, size)
    files = StoreSize(wanted).files(left)
    say_files_to_write(config.out, files)


def survey(config: ExtractTargets, spec: JobSpec) -> tuple[Manifest, WorkList, Identity]:
    """List the units and return the targets' identity, without loading a teacher's weights.

    Raises:
        ConfigError: --out cannot be a target store, or it is not told which weights are meant.
        StorageError: --out cannot be read.
        MismatchError: the store there is of other targets or images.
    """
    require_place(config.out)
    require_own_folder(config.out, "target store")
    require_weights(spec.teacher)
    manifest = spec.manifest()
    existing = existing_identity(config.out)
    wanted = expected_extracted(
        visible_identity(spec.teacher), config.policy, parse_codec(config.codec), existing
    )
    if existing is not None and not config.overwrite:
        require_same(existing, wanted, what=config.out, remedy=ANOTHER_STORE)
    identity_hash = "" if existing is None else content_hash(wanted)
    return manifest, list_work(config, manifest, identity_hash), wanted


def spec_of(config: ExtractTargets) -> JobSpec:
    """Return the extraction as names and numbers; reads the store, so call it once.

    A batch size of "auto" is one that no batch has: see `batch.settled_batch`.
    """
    return JobSpec(
        images=config.images,
        store=config.out,
        teacher=settled_teacher(config),
        policy=config.policy,
        codec=config.codec,
        batch_size=USUAL_BATCH if config.batch_size == AUTO else config.batch_size,
        workers=config.workers,
        device=config.device,
    )


def settled_teacher(config: ExtractTargets) -> TeacherSpec:
    """Replace a precision of "auto": by that of an existing store, unless it is overwritten.

    Raises:
        ConfigError: this machine would choose it, but other machines will extract.
    """
    spec = config.teacher_spec
    if spec.precision != "auto":
        return spec
    existing = None if config.overwrite else existing_identity(config.out)
    elsewhere = "--init" if config.init else "--scheduler" if config.scheduler else None
    if elsewhere and existing is None:
        raise ConfigError(
            f"--precision auto with {elsewhere} would be settled by this machine and not by those "
            "that extract; give --precision bf16 or --precision fp32"
        )
    precision = None if existing is None else existing["teacher"]["precision"]
    return settle_precision(spec, own_device(config), existing=precision)


def own_device(config: "ExtractTargets") -> torch.device:
    """Return where this process runs the teacher: of several on a machine, each on its own GPU.

    With `--devices`, it is the first of these.

    Raises:
        ConfigError: there is no such device here.
    """
    if config.devices:
        return pick_devices(config.devices)[0]
    part = None if config.own_part is None else config.own_part.number
    return device_of_process(config.device, part=part)


def say_teacher(config: ExtractTargets, spec: TeacherSpec) -> None:
    """Print which teacher runs, in which precision, and where."""
    if config.init or config.scheduler:
        where = "the machines that extract"
    elif config.devices:
        where = ", ".join(map(str, pick_devices(config.devices)))
    else:
        where = str(own_device(config))
    said = f"teacher {spec.name} in {spec.precision} on {where}"
    say(said, teacher=spec.name, precision=spec.precision, device=where)


def record_of(config: ExtractTargets, identity: Identity, manifest: Manifest) -> StageRecord:
    """Return the stage's record, not written yet."""
    return StageRecord(
        url=record_url(config.out, "extract-targets"),
        stage="extract-targets",
        config=config,
        inputs={},
        content=identity,
        extent=extent_of(manifest, config.view_count),
    )


def list_work(
    config: ExtractTargets, manifest: Manifest, identity_hash: str, *, keep: bool = False
) -> WorkList:
    """List all units and what the store holds of them.

    Args:
        config: the options.
        manifest: that of the images.
        identity_hash: that of the store.
        keep: whether to write down what many marks say, see `read_marks`.

    Raises:
        MismatchError: the store is of other images, and --overwrite is not given.
    """
    units = list_units(manifest, config.view_count)
    marks = read_marks(config.out, config.view_count, keep=keep)
    record = read_record(record_url(config.out, "extract-targets"))
    # A record of the same images shows that this check was passed or overruled before.
    known = record is not None and (
        record["extent"].get("images_manifest_sha256") == manifest.sha256
    )
    if not (config.overwrite or known):
        remedy = "give another --out for these images, or --overwrite to extract them anew"
        require_same_images(config.out, manifest, marks, remedy)
    own = units if config.own_part is None else config.own_part.of(units)
    done = FinishedUnits(units, marks, identity_hash)
    return WorkList(units, own, done, undone_units(units, marks, identity_hash))


def samples_of(units: Iterable[Unit]) -> int:
    """Count the images of units; an image counts once for each view."""
    return sum(unit.shard.samples for unit in units)


def _of_all(config: ExtractTargets, work: WorkList) -> str:
    if config.own_part is None:
        return ""
    return f" in part {config.part}; in all parts {len(work.left)} of {len(work.units)} to do"


def _reasons(left: dict[Unit, str]) -> list[str]:
    """Name each unit that must be done again, and why; count the units that were never done."""
    stale = [f"{unit.path}: {reason}" for unit, reason in left.items() if reason != NOT_DONE]
    new = Counter(unit.view for unit, reason in left.items() if reason == NOT_DONE)
    return stale + [f"{view_name(view)}: {count} {NOT_DONE}" for view, count in new.items()]


def _bytes_of(
    config: ExtractTargets, manifest: Manifest, identity: Identity, left: Iterable[Unit]
) -> int:
    """Count the bytes of units in the store, and of the groups and record around them."""
    units = list(left)
    if not units:
        return 0
    keys = {shard.name: keys for shard, keys in listed_dataset(manifest).shards}
    store = StoreSize(identity)
    record = record_of(config, identity, manifest).to_bytes("done", {})
    inside = store.units((unit, keys[unit.shard.name]) for unit in units)
    return inside + store.groups(config.view_count) + len(record)
