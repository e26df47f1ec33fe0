"""`milan-pipeline inspect PATHS`: what a store, shards or runs contain, as text or as a page."""

import dataclasses
from typing import Literal

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import arguments, option, require_least
from milan_pipeline.core.console import note, report
from milan_pipeline.core.cores import computing
from milan_pipeline.core.progress import waiting
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs

FOR_THE_PAGE = ("images", "targets", "originals")
"""Options that only the page needs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOutput:
    """Show what is in a target store, in shards, or in one or more runs; write a page with --html.

    The command prints facts about PATHS and does not change them. A folder with runs below it
    stands for all of them. The page opens from disk, without
    a network. It has a gallery of targets with masks and nearest patches, histograms, or the curves
    of training. Several runs are compared.
    """

    paths: tuple[str, ...] = arguments()
    html: str | None = option(
        None, help="File to write the page to; default: no page.", group="Output", role="execution"
    )
    images: str | None = option(
        None,
        help="Folder of the image shards, to show pixels on the page; default: no pixels.",
        group="Input",
        role="execution",
        look=inputs.image_shards,
    )
    targets: str | None = option(
        None,
        help="Target store or shards of these images, to show what runs predict. Images that the "
        "runs were not trained on tell most; default: no predictions.",
        group="Input",
        role="execution",
        look=inputs.place,
    )
    originals: str | None = option(
        None,
        help="Target store that these targets were transcoded from, to show what the codec lost; "
        "default: no comparison.",
        group="Input",
        role="execution",
        look=inputs.target_store,
    )
    results: tuple[str, ...] = option(
        (),
        help="Folder with results of probe, finetune or segment, in it or below it; may be "
        "repeated; default: the run's own folder.",
        group="Input",
        role="execution",
    )
    gallery: int = option(
        24,
        help="Number of views or images on the page; of predictions, at most 12.",
        group="Output",
        unit="views",
        least=1,
        most=150,
        role="content",
    )
    seed: int = option(
        0,
        help="Seed of the sample that is shown, and of the masks.",
        group="Output",
        unit="number",
        least=0,
        role="content",
    )
    threads: int | Literal["auto"] = common.threads()

    def __post_init__(self) -> None:
        require_least(self)
        if self.html is not None and not self.html.lower().endswith((".html", ".htm")):
            raise ConfigError(f"--html {self.html} is no page; use a name that ends in .html")
        for name in FOR_THE_PAGE:
            if self.html is None and getattr(self, name) is not None:
                raise ConfigError(
                    f"--{name} is for the page; give --html FILE as well, or leave it out"
                )
        if self.targets is not None and self.images is None:
            raise ConfigError(f"--targets {self.targets} also needs pixels; give --images")


def run(config: InspectOutput) -> None:
    """Print the facts, and write the page if --html is given."""
    from milan_pipeline import storage
    from milan_pipeline.core.console import short_bytes

    with waiting("inspect: reading"):
        from milan_pipeline.report.inspection import inspect_places

        found = inspect_places(config.paths, config.results)
    report(found.lines, found.document)
    if config.html is not None:
        with waiting("loading libraries"):
            from milan_pipeline.report.page import render
            from milan_pipeline.report.pages import page_of

        chosen = {name: getattr(config, name) for name in (*FOR_THE_PAGE, "gallery", "seed")}
        with computing(config), waiting("inspect: drawing the page"):
            data = render(page_of(found, **chosen)).encode(errors="backslashreplace")
        storage.put_bytes(config.html, data)
        note(f"{config.html}: {short_bytes(len(data))}")


command = stage_command(
    "inspect",
    InspectOutput,
    run=run,
    dry_run=None,
    example="milan-pipeline inspect targets.zarr --images images --html targets.html",
)
