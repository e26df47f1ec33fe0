"""`milan-pipeline transcode`: target store -> target store with another codec; no teacher runs."""

import dataclasses

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument, option
from milan_pipeline.core.interrupts import stop_request
from stages.shared.dask_options import DaskOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcode(DaskOptions):
    """Decode the targets of the store SOURCE and store them in OUT by another codec.

    No teacher runs. A codec that needs fitting is fitted to the first images by the hash of their
    keys, and stored in OUT. If the command is killed or stopped, run it again: finished units are
    kept. With --scheduler or --processes, Dask workers do the units.
    """

    source: str = argument()
    out: str = argument()
    codec: str = option(
        help="How targets are stored: float16, bfloat16, int8, high, compact, tiny, or vector or "
        "transform with :bytes=N a token or :ratio=X to float16.",
        group="Targets",
    )
    views: int | None = option(
        None,
        help="Views to transcode; default: all.",
        role="extent",
        least=1,
        group="Input",
        unit="views",
    )
    device: str = option(
        "auto",
        help="Where targets are decoded and encoded: auto, cpu, cuda.",
        role="execution",
        group="This machine",
    )
    workers: int = option(
        2,
        help="Threads, each doing one unit.",
        role="execution",
        least=0,
        group="This machine",
        unit="threads",
    )
    allow_unfinished: bool = option(
        default=False,
        help="Take the finished units of a store whose extraction has not ended.",
        role="execution",
        group="Input",
    )
    overwrite: bool = option(
        default=False,
        help="Replace targets of another codec or source, and fit the codec again.",
        role="execution",
        group="Output",
    )


def run(config: Transcode) -> None:
    """Do every unit that is not done."""
    from stages.transcode.run import transcode

    with stop_request() as stop:
        transcode(config, stop)


def dry_run(config: Transcode) -> None:
    """Print how many units are left and how many bytes they will take."""
    from stages.transcode.plan import describe

    describe(config)


command = stage_command(
    "transcode",
    Transcode,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline transcode targets.zarr tiny.zarr --codec tiny",
)
