"""`milan-pipeline pack-images`: image files -> image shards and their manifest."""

import contextlib
import dataclasses
import itertools
from collections.abc import Generator

from milan_pipeline import storage
from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument, count, option, require_least
from milan_pipeline.core.console import bytes_text, say, say_counts, say_nothing_to_do
from milan_pipeline.core.counting import such
from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.images.budget import BadImageBudget, Skipped
from milan_pipeline.images.class_tree import (
    number_of_classes,
    some,
    warn_of_lost_classes,
    warn_of_source,
)
from milan_pipeline.images.source_files import SourceFiles
from milan_pipeline.images.sources import Source, shuffled
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.find import find_images
from milan_pipeline.provenance.record import StageRecord, read_record
from milan_pipeline.provenance.reporter import Reporter, reporting
from milan_pipeline.shards.ignored import ignored_fields
from milan_pipeline.shards.image_samples import samples_of
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.writer import (
    delete_unlisted,
    list_as_written,
    listed_shards,
    write_shard,
)
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.image_source import local_source, require_apart
from milan_pipeline.stages.shared.own_folder import require_own_folder

# A folder of photos holds a few files that only look like images; that alone is no reason to fail.
STRAY_FILES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackImages:
    """Pack images into shards (WebDataset tars). Only --exif apply changes bytes of images.

    SOURCE is a folder with one sub-folder for each class, a flat folder, a list or a table. A list
    has one path in each line, and after a tab optionally a class number or name. A table is a CSV,
    TSV, JSON lines or Parquet file, a folder of Parquet files, or what Hugging Face datasets saved
    or img2dataset downloaded. DEST is the folder for the shards and manifest.json.
    """

    source: str = argument()
    dest: str = argument()
    masks: str | None = option(
        None,
        help="Folder with a mask for each image. A mask has its image's path, but ends in .png. "
        "It is packed as .mask.png; default: none.",
        role="execution",  # the fingerprint covers what is in it
        group="Input",
    )
    image_column: str | None = option(
        None,
        help="Column of a table with the images or their paths; default: path, image or another "
        "such name.",
        group="Input",
    )
    label_column: str | None = option(
        None,
        help="Column with the classes, by number or name, or none; default: label, class or "
        "another such name.",
        group="Input",
    )
    caption_column: str | None = option(
        None,
        help="Column with texts that are packed as .txt, or none; default: caption or text.",
        group="Input",
    )
    image_folder: str | None = option(
        None,
        help="Folder that the paths in a table are below; default: the table's own.",
        role="execution",  # as for masks
        group="Input",
    )
    exif: str = option(
        "ignore",
        help="Whether images are turned as their EXIF says. Images that are turned get new bytes.",
        choices=("ignore", "apply"),
        group="Input",
    )
    prefix: str = option("images", help="Beginning of the shards' names.", group="Output")
    samples_per_shard: int = count(1000, "images", group="Output", help="Images in each shard.")
    even_shards: bool = option(
        default=False,
        help="Divide the images evenly: counts of shards differ by one at most.",
        group="Output",
    )
    shuffle: bool = option(default=True, help="Shuffle the files before packing.", group="Output")
    seed: int = option(0, help="Seed of the shuffle.", least=0, group="Output", unit="number")
    workers: int = common.workers("Threads. Each writes one shard at a time.")
    max_bad_fraction: float = common.max_bad_fraction(always="ten are")
    overwrite: bool = common.overwrite(
        "Write all shards again, even if they were made with other options."
    )

    def __post_init__(self) -> None:
        require_least(self)
        if not self.prefix or "/" in self.prefix or "." in self.prefix:
            raise ConfigError(f"--prefix {self.prefix!r} must be a name without dots and slashes")


def run(config: PackImages) -> None:
    """Write all shards that are not there yet, then complete the manifest."""
    source = _source(config)
    plan = _plan(config, source)
    record, listed, state = _compare_with_earlier(config, source)
    left = {name: files for name, files in plan.items() if name not in listed}
    if not left and state == "done":
        say_nothing_to_do(config.dest, such(len(listed), "shards", "there"))
        return
    manifest = Manifest(
        kind="images",
        folder=config.dest,
        shards=tuple(listed.values()),
        complete=False,
        common={
            "classes": source.classes,
            "exif": config.exif,
            **ignored_fields(config.dest, source.ignored),
        },
    )
    budget = BadImageBudget(
        fraction=config.max_bad_fraction, images=len(source.files), always=STRAY_FILES
    )
    for shard in listed.values():
        budget.add(shard.name, shard.details["skipped"])
    if config.overwrite and _wrote_all(record):
        delete_unlisted(config.dest, "images", plan.keys())
    # In this order: a record must never stand beside a manifest that lists other shards.
    manifest.save()
    record.begin()
    with (
        stop_request() as stop,
        reporting(config.dest, "pack-images", stop, units=len(plan), done=len(listed)) as reporter,
    ):
        written = _written(config, left, budget, reporter)
        manifest = list_as_written(manifest, order=list(plan), written=written, stop=stop)
        skipped = [row for shard in manifest.shards for row in shard.details["skipped"]]
        if not manifest.samples:
            raise DataError(
                f"no image of {config.source} can be read ({_named(skipped[0])}); give others"
            )
    warn_of_lost_classes(source, {row["key"] for row in skipped})
    counts = {
        "shards": len(manifest.shards),
        "classes": number_of_classes(source),
        "images": manifest.samples,
        "skipped": len(skipped),
        "ignored": len(source.ignored),
        "bytes": sum(shard.bytes for shard in manifest.shards),
    }
    record.finish(counts)
    say_counts(config.dest, counts, named={"classes": some(source.classes)})


def dry_run(config: PackImages) -> None:
    """Say how many shards would be written and what they would take."""
    source = _source(config)
    _, listed, _ = _compare_with_earlier(config, source)
    plan = _plan(config, source)
    left = [name for name in plan if name not in listed]
    size = sum(plan[name].bytes for name in left)
    done, images, classes = len(plan) - len(left), len(source.files), number_of_classes(source)
    say(f"shards to do: {len(left)}, done: {done}", shards_to_do=len(left), shards_done=done)
    names = f" ({some(source.classes)})" if source.classes else ""
    say(f"images: {images}, classes: {classes}{names}", images=images, classes=classes)
    say(f"other files left out: {len(source.ignored)}", ignored=len(source.ignored))
    say_bytes_to_write(config.dest, f"about {bytes_text(size)}", size)


def _source(config: PackImages) -> Source:
    """List what is to be packed; say what looks wrong with it."""
    storage.require_writable(config.dest)
    require_own_folder(config.dest, "image shards")
    root, dest = local_source("SOURCE", config.source), storage.local_path(config.dest)
    masks = None if config.masks is None else local_source("--masks", config.masks)
    below = config.image_folder
    require_apart(root, config.dest)
    source = find_images(
        root,
        columns=Columns(
            image=config.image_column, label=config.label_column, caption=config.caption_column
        ),
        folder=None if below is None else local_source("--image-folder", below),
        masks=masks,
        leave_out=() if dest is None else (dest,),
    )
    warn_of_source(source, root)
    return source


def _compare_with_earlier(
    config: PackImages, source: Source
) -> tuple[StageRecord, dict[str, Shard], str | None]:
    """Return the stage's record, the shards that stay, and the state an earlier run left."""
    record = StageRecord(
        url=storage.join(config.dest, "pack-images.json"),
        stage="pack-images",
        config=config,
        inputs={"files": source.fingerprint()},
    )
    if config.overwrite:
        record.previous_state()  # refuses the record of another stage
        return record, {}, None
    listed = listed_shards(config.dest, "images")
    if not listed and _is_begun(record.url):
        # What stopped it may have been mended since, so that its files are others now.
        return record, {}, None
    state = record.previous_state()
    if state is None and listed:
        raise ConfigError(f"DEST {config.dest} holds other shards; give another folder")
    return record, listed, state


def _is_begun(url: str) -> bool:
    """Tell whether a record is of a run that did not come to its end."""
    earlier = read_record(url)
    return earlier is not None and earlier["state"] != "done"


def _wrote_all(record: StageRecord) -> bool:
    """Tell whether this stage wrote what DEST lists; `index` lists tars of others."""
    folder = storage.folder_of(record.url)
    return storage.exists(record.url) and not storage.exists(storage.join(folder, "index.json"))


def _plan(config: PackImages, source: Source) -> dict[str, SourceFiles]:
    """Divide the files among shards: name -> files."""
    files = shuffled(source.files, config.seed) if config.shuffle else source.files
    starts = [*range(0, len(files), config.samples_per_shard), len(files)]
    if config.even_shards:
        shards = len(starts) - 1
        starts = [number * len(files) // shards for number in range(shards + 1)]
    return {
        f"{config.prefix}-{number:06d}.tar": files[start:end]
        for number, (start, end) in enumerate(itertools.pairwise(starts))
    }


def _written(
    config: PackImages,
    plan: dict[str, SourceFiles],
    budget: BadImageBudget,
    reporter: Reporter,
) -> Generator[Shard, None, None]:
    shards = ordered_map(
        lambda item: _write(config, *item),
        plan.items(),
        workers=config.workers,
        ahead=2 * config.workers,
    )
    total = sum(map(len, plan.values()))
    with contextlib.closing(shards), progress_bar("pack-images", total=total) as bar:
        for shard in shards:
            bar.update(shard.samples + len(shard.details["skipped"]))
            reporter.step(shard.samples)
            yield shard
            budget.add(shard.name, shard.details["skipped"])


def _named(row: Skipped) -> str:
    return f"{row.get('file', row['key'])}: {row['reason']}"


def _write(config: PackImages, name: str, files: SourceFiles) -> Shard:
    skipped: list[Skipped] = []
    samples = samples_of(files, skipped, turn=config.exif == "apply")
    shard = write_shard(config.dest, name, samples)
    return dataclasses.replace(shard, details={"skipped": skipped})


command = stage_command(
    "pack-images",
    PackImages,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline pack-images photos images/train",
)
