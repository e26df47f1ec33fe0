"""`milan-pipeline extract-targets`: image shards -> target store. CLIP runs here and only here."""

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

import click

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError
from milan_pipeline.identity import Identity, build_identity, content_hash, require_same
from milan_pipeline.interrupts import StopRequest, stop_request
from milan_pipeline.manifest import Manifest, load_manifest, require_unique_stems
from milan_pipeline.options import option, stage_command
from milan_pipeline.provenance import StageRecord
from milan_pipeline.units import (
    Mark,
    Unit,
    extent_of,
    list_units,
    read_marks,
    require_same_images,
    undone_units,
)
from milan_pipeline.views import VIEW_POLICIES, ViewPolicy

if TYPE_CHECKING:
    from milan_pipeline.codecs import Codec
    from milan_pipeline.teacher import Teacher, TeacherShape


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractTargets:
    """Run a CLIP image tower over image shards and store its patch features and mask priors.

    Killed or stopped, run the same command again: finished units are kept. With more --views, or
    with changed or added shards, only what is missing is done.
    """

    images: str = option(help="Folder of image shards with manifest.json.", role="extent")
    out: str = option(help="Target store to write, e.g. targets.zarr.", role="execution")
    teacher: str = option(help="open_clip model (ViT-B-16), hf-hub:ORG/REPO or local-dir:PATH.")
    pretrained: str | None = option(None, help="Weights tag (openai) or checkpoint file.")
    views: int = option(1, help="Views of each image.", role="extent")
    view_policy: str = option(
        "random-resized-crop", help="How views are cut.", choices=VIEW_POLICIES
    )
    view_seed: int = option(0, help="Seed of the crops.")
    min_scale: float = option(0.2, help="Smallest share of the image's area that a crop takes.")
    codec: str = option("float16", help="How targets are stored: float16 or int8.")
    precision: str = option("fp32", help="Type of the teacher's weights.", choices=("fp32", "bf16"))
    device: str = option("auto", help="Where the teacher runs: auto, cpu, cuda.", role="execution")
    batch_size: int = option(64, help="Images in a teacher batch.", role="execution")
    workers: int = option(2, help="Decoding threads.", role="execution")
    max_bad_fraction: float = option(
        0.01,
        help="Share of unreadable images that is put up with; above 0, always a single one.",
        role="execution",
    )
    overwrite: bool = option(
        default=False, help="Replace targets made with other options.", role="execution"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 100:
            raise ConfigError(f"--views {self.views} is not within 1 to 100; give a number that is")
        if self.view_policy == "center" and self.views > 1:
            raise ConfigError(
                f"--view-policy center gives one view, --views asks for {self.views}; give 1"
            )
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(
                f"--batch-size {self.batch_size} or --workers {self.workers} is too small; "
                "give at least 1 and 0"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(
                f"--max-bad-fraction {self.max_bad_fraction} is not within 0 to 1; give a share"
            )
        _ = self.policy

    @property
    def policy(self) -> ViewPolicy:
        """How views are cut."""
        return ViewPolicy(name=self.view_policy, seed=self.view_seed, scale=(self.min_scale, 1.0))


def run(config: ExtractTargets) -> None:
    """Do every unit that is not done."""
    with stop_request() as stop:
        _run(config, stop)


def _run(config: ExtractTargets, stop: StopRequest) -> None:
    from milan_pipeline.codecs import make_codec
    from milan_pipeline.devices import pick_device
    from milan_pipeline.extraction import ExtractionJob, extract_units
    from milan_pipeline.ledger import BadImageBudget
    from milan_pipeline.target_store import create_root
    from milan_pipeline.teacher import Teacher

    manifest = _load_images(config)
    codec = make_codec(config.codec)
    device = str(pick_device(config.device))
    teacher = Teacher.load(
        config.teacher, config.pretrained, precision=config.precision, device=device
    )
    identity = _identity(config, teacher, codec)
    create_root(config.out, identity, overwrite=config.overwrite)
    identity_hash = content_hash(identity)
    units = list_units(manifest, config.views)
    marks = _marks(config, manifest)
    left = undone_units(units, marks, identity_hash)
    record = _record(config, identity, manifest)
    if not left and record.previous_state() == "done":
        click.echo(f"{config.out}: nothing to do, {len(units)} units are done")
        return
    record.begin()
    job = ExtractionJob(
        manifest=manifest,
        store=config.out,
        identity_hash=identity_hash,
        teacher=teacher,
        policy=config.policy,
        codec=codec,
        batch_size=config.batch_size,
        workers=config.workers,
    )
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


def dry_run(config: ExtractTargets) -> None:
    """Say what is left and what it will take, from the teacher's configuration alone."""
    from milan_pipeline.codecs import make_codec
    from milan_pipeline.target_store import bytes_per_sample, read_identity
    from milan_pipeline.teacher import describe_teacher

    manifest = _load_images(config)
    codec = make_codec(config.codec)
    shape = describe_teacher(config.teacher)
    units = list_units(manifest, config.views)
    left = dict.fromkeys(units, "not done yet")
    if storage.exists(storage.join(config.out, "zarr.json")):
        existing = read_identity(config.out)
        wanted = _visible_identity(config, existing, shape, codec)
        if not config.overwrite:
            remedy = "give another --out for these targets, or --overwrite to extract them anew"
            require_same(existing, wanted, what=config.out, remedy=remedy)
        left = undone_units(units, _marks(config, manifest), content_hash(wanted))
    size = bytes_per_sample(codec, shape.grid[0] * shape.grid[1], shape.width)
    click.echo(f"units to do: {len(left)}, done: {len(units) - len(left)}")
    for reason, count in sorted(Counter(left.values()).items()):
        click.echo(f"  {count}: {reason}")
    click.echo(f"images to run through the teacher: {_samples(list(left))}")
    click.echo(
        f"bytes to write: about {size * _samples(list(left))} ({size} a target), "
        f"free: {storage.free_bytes(config.out)}"
    )


def _load_images(config: ExtractTargets) -> Manifest:
    manifest = load_manifest(config.images, kind="images")
    require_unique_stems(manifest.shards)
    return manifest


def _marks(config: ExtractTargets, manifest: Manifest) -> dict[str, Mark]:
    """Read the store's marks, and refuse a store of other images."""
    marks = read_marks(config.out, config.views)
    if not config.overwrite:
        remedy = "give another --out for these images, or --overwrite to extract them anew"
        require_same_images(config.out, manifest, marks, remedy)
    return marks


def _samples(units: list[Unit]) -> int:
    return sum(unit.shard.samples for unit in units)


def _identity(config: ExtractTargets, teacher: "Teacher", codec: "Codec") -> Identity:
    return build_identity(
        teacher=teacher.identity(),
        preprocessing={
            "pixels": "pillow-rgb, bicubic antialiased, uint8",
            "size": teacher.image_size,
            "mean": teacher.mean,
            "std": teacher.std,
        },
        view_policy=config.policy.as_dict(),
        codec=codec.parameters(),
    )


def _visible_identity(
    config: ExtractTargets, existing: Identity, shape: "TeacherShape", codec: "Codec"
) -> Identity:
    """Put what is known without the teacher's weights into the place of what a store has there."""
    from milan_pipeline.teacher import name_in_identity, tag_in_identity

    known = {
        "name": name_in_identity(config.teacher),
        "pretrained": tag_in_identity(config.pretrained),
        "precision": config.precision,
        "grid": list(shape.grid),
        "width": shape.width,
    }
    return existing | {
        "teacher": existing["teacher"] | known,
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


command = stage_command("extract-targets", ExtractTargets, run=run, dry_run=dry_run)
