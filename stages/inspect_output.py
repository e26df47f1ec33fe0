"""`milan-pipeline inspect PATH`: what a store, shards or runs hold, in a terminal or as a page."""

import dataclasses

import click

from milan_pipeline.errors import ConfigError
from milan_pipeline.options import arguments, option, require_least, stage_command


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOutput:
    """Look at a target store, at target or image shards, or at a run; several runs are compared.

    Prints what is there; with --html also writes one page that opens from disk, without network:
    a gallery of targets with masks and nearest patches, histograms, or the curves of training.
    Nothing that is looked at is written to.
    """

    path: tuple[str, ...] = arguments()
    html: str | None = option(None, help="File to write the page to.", role="execution")
    images: str | None = option(
        None, help="Folder of image shards, for the page's pixels.", role="execution"
    )
    targets: str | None = option(
        None,
        help="Target store or shards of held-out images, for a run's predictions on the page.",
        role="execution",
    )
    results: tuple[str, ...] = option(
        (),
        help="Folder that probe, finetune or segment wrote to, or one above; again for more.",
        role="execution",
    )
    gallery: int = option(
        24, help="Views, or images, that the page shows.", least=1, most=150, role="execution"
    )
    seed: int = option(0, help="Of which targets are looked at.", least=0, role="execution")
    json: bool = option(default=False, help="Print one JSON document.", role="execution")

    def __post_init__(self) -> None:
        require_least(self)
        if self.html is None and (self.images or self.targets):
            flag = "--images" if self.images else "--targets"
            raise ConfigError(f"{flag} is for the page; give --html FILE, too, or leave it out")
        if self.targets is not None and self.images is None:
            raise ConfigError(f"--targets {self.targets} needs pixels, too; give --images")


def run(config: InspectOutput) -> None:
    """Tell the facts, and write the page if one is wanted."""
    from milan_pipeline import storage
    from milan_pipeline.report.inspection import inspect_places

    found = inspect_places(config.path, config.results)
    click.echo(found.to_json() if config.json else found.to_text())
    if config.html is not None:
        from milan_pipeline.report.page import render
        from milan_pipeline.report.pages import page_of

        chosen = {name: getattr(config, name) for name in ("images", "targets", "gallery", "seed")}
        data = render(page_of(found, **chosen)).encode()
        storage.put_bytes(config.html, data)
        click.echo(f"{config.html}: {len(data)} bytes", err=True)


command = stage_command("inspect", InspectOutput, run=run, dry_run=None)
