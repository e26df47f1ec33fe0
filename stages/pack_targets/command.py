"""`milan-pipeline pack-targets`: target store -> target shards that pretrain streams."""

import dataclasses

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import option
from milan_pipeline.core.interrupts import stop_request
from stages.shared.dask_options import DaskOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackTargets(DaskOptions):
    """Pack a target store into tar shards, one for each image shard and view.

    The same store gives the same bytes. If the command is killed, run it again: listed shards are
    kept. With --scheduler or --processes, Dask workers write the shards.
    """

    targets: str = option(help="Target store.", role="execution", group="Input")
    out: str = option(
        help="Folder for the shards and manifest.json.", role="execution", group="Output"
    )
    views: int | None = option(
        None,
        help="Views to pack; default: all.",
        role="extent",
        least=1,
        group="Input",
        unit="views",
    )
    codec: str | None = option(
        None,
        help="Re-encode targets: float16, bfloat16, int8, high, compact, tiny, or vector or "
        "transform with :bytes=N a token or :ratio=X to float16; default: as they are stored.",
        group="Targets",
    )
    device: str = option(
        "auto",
        help="Where --codec decodes and encodes: auto, cpu, cuda.",
        role="execution",
        group="This machine",
    )
    workers: int = option(
        2,
        help="Threads, each writing one shard.",
        role="execution",
        least=0,
        group="This machine",
        unit="threads",
    )
    allow_unfinished: bool = option(
        default=False,
        help="Pack the finished units of a store whose extraction has not ended.",
        role="execution",
        group="Input",
    )
    overwrite: bool = option(
        default=False, help="Replace shards of other targets.", role="execution", group="Output"
    )


def run(config: PackTargets) -> None:
    """Write every target shard that is not listed."""
    from stages.pack_targets.run import pack

    with stop_request() as stop:
        pack(config, stop)


def dry_run(config: PackTargets) -> None:
    """Print how many shards would be written and how many bytes they would take."""
    from stages.pack_targets.run import describe

    describe(config)


command = stage_command(
    "pack-targets",
    PackTargets,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline pack-targets --targets targets.zarr --out target-shards",
)
