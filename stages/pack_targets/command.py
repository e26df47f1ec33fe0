"""`milan-pipeline pack-targets`: target store -> target shards that pretrain streams."""

import dataclasses

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import option
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.dask_options import DaskOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackTargets(DaskOptions):
    """Copy a target store into target shards, which training reads: a tar for each shard and view.

    The same store gives the same bytes. If the command is killed, run it again: listed shards are
    kept. With --scheduler or --processes, Dask workers write the shards.
    """

    targets: str = option(
        help="Target store.", role="execution", group="Input", look=inputs.target_store
    )
    out: str = option(
        help="Folder for the shards and manifest.json.", role="execution", group="Output"
    )
    views: int | None = common.stored_views("Views to pack")
    codec: str | None = common.codec(
        None, text="Re-encode targets", more="; default: as they are stored"
    )
    phi_s: bool = option(
        False,
        help="Also fit PHI-S to a sample of the targets, for `pretrain --target-norm phi-s`. "
        "Shards that are there are kept.",
        role="extent",
        group="Targets",
    )
    device: str = common.device("Where --codec decodes and encodes")
    workers: int = common.workers("Threads. Each writes one shard at a time.")
    allow_unfinished: bool = common.allow_unfinished(
        "Pack the finished units of a store whose extraction is not finished."
    )
    overwrite: bool = common.overwrite("Write all shards again, even if they hold other targets.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codec is not None:
            parse_codec(self.codec)


run = lazily("milan_pipeline.stages.pack_targets.run:pack", stoppable=True)
dry_run = lazily("milan_pipeline.stages.pack_targets.run:describe")
command = stage_command(
    "pack-targets",
    PackTargets,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline pack-targets --targets targets.zarr --out target-shards",
)
