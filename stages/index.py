"""`milan-pipeline index`: write an index and a manifest for WebDataset tars of others."""

import contextlib
import dataclasses
from collections.abc import Generator

from milan_pipeline import storage
from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import arguments, option, require_least
from milan_pipeline.core.console import bytes_text, say, say_counts, say_nothing_to_do
from milan_pipeline.core.counting import such
from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.core.progress import progress_bar, ticking
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.class_order import ClassOrder
from milan_pipeline.errors import ConfigError, DataError, MilanError, MissingDataError
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import Reporter, reporting
from milan_pipeline.shards.indexed import require_images, shared_classes, warn_of_copies
from milan_pipeline.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    Shard,
    load_manifest,
    require_unique_stems,
)
from milan_pipeline.shards.sequential import index_shard
from milan_pipeline.shards.writer import list_as_written
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared.own_folder import require_own_folder

QUOTED_ERRORS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Make image shards of WebDataset tars that you have: write an index of each and a manifest.

    URLS are tar files; `{000..127}` and `{a,b}` are expanded. Each tar is read once. The tars do
    not change and stay where they are.
    """

    urls: tuple[str, ...] = arguments()
    out: str | None = option(
        None,
        help="Folder for the manifest and indices; default: that of the tars.",
        group="Output",
        role="execution",
    )
    image_field: str | None = option(
        None,
        help="Extension of each sample's image: everything after the first dot, such as "
        "input.jpg; default: jpg, jpeg, png or webp.",
        group="Input",
    )
    max_bad_fraction: float = option(
        0.01,
        help="Largest share of samples that may have no image. Ten are always allowed, unless "
        "this is 0.",
        least=0,
        most=1,
        role="execution",
        group="Input",
        unit="share",
    )
    workers: int = common.workers("Threads. Each reads one tar at a time.")
    overwrite: bool = common.overwrite("Index tars again that the manifest lists.")

    def __post_init__(self) -> None:
        require_least(self)
        if self.image_field is not None and not self.field:
            raise ConfigError("--image-field is empty; give what follows the first dot of a name")
        folders = {storage.folder_of(url) for url in storage.expand(self.urls)}
        if self.out is None and len(folders) > 1:
            raise ConfigError(
                f"URLS lie in {len(folders)} folders; give --out, the folder for the index"
            )

    @property
    def field(self) -> str | None:
        """What an image's name ends in, as tars are searched for it."""
        return self.image_field and self.image_field.removeprefix(".").lower()

    @property
    def folder(self) -> str:
        """Where the manifest goes."""
        return self.out or storage.folder_of(storage.expand(self.urls)[0])

    @property
    def names(self) -> list[str]:
        """The shards as the manifest names them: by name in its own folder, else by URL."""
        names = (
            storage.basename(url) if storage.folder_of(url) == self.folder else _absolute(url)
            for url in storage.expand(self.urls)
        )
        return list(dict.fromkeys(names))


def _absolute(url: str) -> str:
    path = storage.local_path(url)
    if path is not None and ".." in path.parts:  # else links stay, as other machines know them
        path = path.parent.resolve() / path.name
    return url if path is None else str(path.absolute())


def run(config: Index) -> None:
    """Index every tar that is not listed yet."""
    storage.require_writable(config.folder)
    require_own_folder(config.folder, "image shards")
    manifest, left = _plan(config)
    record = StageRecord(
        url=storage.join(config.folder, "index.json"), stage="index", config=config, inputs={}
    )
    if not left and manifest.complete and storage.exists(record.url):
        say_nothing_to_do(
            config.folder,
            such(len(manifest.shards), "shards", "listed"),
        )
        return
    order = _order(config.names, [shard.name for shard in manifest.shards], left)
    require_unique_stems(tuple(_place(name) for name in order))
    classes, refused = ClassOrder(), list[MilanError]()
    manifest = _with_classes(manifest, config.names)
    if not manifest.shards:
        manifest.save()  # `status` knows the folder by it
    done = len(order) - len(left)
    with (
        stop_request() as stop,
        reporting(config.folder, "index", stop, units=len(order), done=done) as reporter,
    ):
        indexed = _indexed(config, manifest, left, classes, refused, reporter=reporter)
        manifest = list_as_written(manifest, order=order, written=indexed, stop=stop)
        if refused:
            raise _joined(refused, tars=len(order))
        require_images(manifest, max_bad_fraction=config.max_bad_fraction)
        warn_of_copies(manifest)
        left_out = sum(len(shard.details.get("skipped", ())) for shard in manifest.shards)
        counts = {"shards": len(manifest.shards), "images": manifest.samples, "left_out": left_out}
        record.finish(counts | {"manifest_sha256": manifest.sha256})
    say_counts(config.folder, counts)
    classes.warn(config.folder)


def dry_run(config: Index) -> None:
    """Say how many tars would be read, and how large those on local disks are."""
    manifest, left = _plan(config)
    done = {shard.name for shard in manifest.shards} - set(left)
    sizes = [_local_bytes(manifest.url_of(_place(name))) for name in left]
    size, remote = sum(size or 0 for size in sizes), sizes.count(None)
    said = f"shards to index: {len(left)}, listed: {len(done)}"
    say(said, shards_to_do=len(left), shards_done=len(done))
    say(
        f"bytes to read: {bytes_text(size)}, and {remote} remote tars; "
        f"free: {storage.free_text(config.folder)}",
        bytes_to_read=size,
        remote_tars=remote,
        free_bytes=storage.free_bytes(config.folder),
    )


def _plan(config: Index) -> tuple[Manifest, list[str]]:
    """Return the manifest as it is and the tars that are to be read."""
    for url in storage.expand(config.urls):
        _require_tar(url)
    manifest = Manifest(kind="images", folder=config.folder, shards=(), complete=False)
    if storage.exists(storage.join(config.folder, MANIFEST_NAME)):
        manifest = load_manifest(config.folder, kind="images", allow_unfinished=True)
    if config.overwrite:
        return manifest, config.names
    listed = {shard.name: shard for shard in manifest.shards}
    there = set(storage.list_names(manifest.folder))
    left = [
        name
        for name in config.names
        if name not in listed
        or not _is_intact(manifest, listed[name], there)
        or listed[name].details.get("image_field") != config.field
    ]
    return manifest, left


def _with_classes(manifest: Manifest, names: list[str]) -> Manifest:
    """Give the manifest the names of the classes that all tars share, those listed before too."""
    listed = [shard.name for shard in manifest.shards]
    urls = [manifest.url_of(_place(name)) for name in dict.fromkeys(listed + names)]
    has_own = any(storage.folder_of(url) == manifest.folder for url in urls[: len(listed)])
    own = manifest.common.get("classes", []) if has_own else []
    classes = shared_classes(urls, known={manifest.folder: own})
    rest = {name: value for name, value in manifest.common.items() if name != "classes"}
    common = rest | ({"classes": classes} if classes else {})
    return dataclasses.replace(manifest, common=common)


def _require_tar(url: str) -> None:
    """Refuse what is given in place of tars: a manifest, a folder, a pattern in quotes."""
    path = storage.local_path(url)
    if storage.basename(url) == MANIFEST_NAME:
        raise ConfigError(
            f"{url} lists shards that are indexed already: give its folder to --images, or give "
            "its tars to index them anew"
        )
    if path is not None and path.is_dir():
        raise ConfigError(f"{url} is a folder; give its tars, as {storage.join(url, '*.tar')}")
    if "*" in url and not (path is not None and path.exists()):
        how = "have the shell expand the *, without quotes, or name" if path else "name"
        raise ConfigError(f"{url} is a pattern; {how} the tars by braces, as {{000..127}}.tar")


def _order(names: list[str], listed: list[str], left: list[str]) -> list[str]:
    """Return the order of the manifest: as named now, or new ones behind those that are listed."""
    return names if set(listed) <= set(names) else list(dict.fromkeys(listed + left))


def _is_intact(manifest: Manifest, shard: Shard, there: set[str]) -> bool:
    """Tell whether a listed tar has the size it had, and an index among the names `there`."""
    if storage.basename(manifest.index_url_of(shard)) not in there:
        return False
    return _local_bytes(manifest.url_of(shard)) in (shard.bytes, None)


def _local_bytes(url: str) -> int | None:
    """Return the size of a local file, None for a remote one."""
    path = storage.local_path(url)
    if path is None:
        return None
    try:
        return path.stat().st_size
    except OSError as error:
        raise MissingDataError(f"{url} cannot be read ({error.strerror}); check the path") from None


def _place(name: str) -> Shard:
    """A shard of which only the name is known."""
    return Shard(name=name, samples=0, bytes=0, sha256="", index_sha256="")


def _indexed(
    config: Index,
    manifest: Manifest,
    names: list[str],
    classes: ClassOrder,
    refused: list[MilanError],
    *,
    reporter: Reporter,
) -> Generator[Shard, None, None]:
    """Index tars; what is wrong with one goes to `refused`, and the others are indexed."""

    def index(name: str) -> Shard | MilanError:
        found: list[bytes] = []
        url = manifest.url_of(_place(name))
        try:
            shard, skipped = index_shard(url, manifest.folder, name, found, config.field)
        except (DataError, MissingDataError) as error:
            return error
        classes.add(found)
        field = {} if config.field is None else {"image_field": config.field}
        return dataclasses.replace(shard, details={"skipped": skipped} | field)

    results = ordered_map(index, names, workers=config.workers, ahead=2 * config.workers)
    bar = progress_bar("index", total=len(names), unit="tars")
    with contextlib.closing(results), bar, ticking(bar):
        for result in results:
            bar.update(1)
            if isinstance(result, Shard):
                reporter.step(result.samples)
                yield result
            else:
                refused.append(result)


def _joined(refused: list[MilanError], *, tars: int) -> MilanError:
    """Return the one error, or an error that quotes the first few of many."""
    if len(refused) == 1:
        return refused[0]
    quoted = "; ".join(str(error) for error in refused[:QUOTED_ERRORS])
    others = ", the others are" if len(refused) < tars else ""
    return DataError(f"{len(refused)} of {tars} tars cannot be indexed{others}: {quoted}")


command = stage_command(
    "index",
    Index,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline index 'shards/train-{000000..000127}.tar' --workers 8",
)
