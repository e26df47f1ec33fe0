"""`milan-pipeline transcode`: target store -> target store with another codec; no teacher runs."""

import dataclasses

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import argument
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.dask_options import DaskOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcode(DaskOptions):
    """Write the targets of the store SOURCE into a new store OUT with another codec, without CLIP.

    A codec that needs fitting is fitted to a sample of the images and stored in OUT. If the command
    is killed or stopped, run it again: finished units are kept. With --scheduler or --processes,
    Dask workers do the units.
    """

    source: str = argument(look=inputs.target_store)
    out: str = argument()
    codec: str = common.codec(dataclasses.MISSING)
    views: int | None = common.stored_views("Views to transcode")
    device: str = common.device("Where targets are decoded and encoded")
    workers: int = common.workers("Threads. Each does one unit at a time.")
    allow_unfinished: bool = common.allow_unfinished(
        "Take the finished units of a store whose extraction is not finished."
    )
    overwrite: bool = common.overwrite(
        "Replace targets of another codec or source, and fit the codec again."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_codec(self.codec)


run = lazily("milan_pipeline.stages.transcode.run:transcode", stoppable=True)
dry_run = lazily("milan_pipeline.stages.transcode.plan:describe")
command = stage_command(
    "transcode",
    Transcode,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline transcode targets.zarr tiny.zarr --codec tiny",
)
