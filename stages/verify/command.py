"""`milan-pipeline verify`: check every object of a target store, and a sample of its targets."""

import dataclasses

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.known_names import teacher_names
from milan_pipeline.cli.options import argument, option
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.dask_options import DaskOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify(DaskOptions):
    """Say whether STORE, a target store, is sound: read all of it, and run CLIP again on a sample.

    If units are damaged, the exit code is 1 and the units are named; --repair extracts only those
    again. Images, teacher and weights are those of the store's record, unless you give others. A
    transcoded store cannot be repaired: run transcode again. With --scheduler or --processes, Dask
    workers check the units; the teacher runs in this process.
    """

    store: str = argument(formerly="targets", look=inputs.target_store)
    images: str | None = option(
        None,
        help="Folder of the image shards, if they have moved; default: as recorded.",
        group="Input",
        role="execution",
        look=inputs.image_shards,
    )
    teacher: str | None = option(
        None,
        help="Name or folder of the teacher, if it has moved; default: as recorded.",
        group="Teacher",
        complete=teacher_names,
        role="execution",
        look=inputs.teacher,
    )
    pretrained: str | None = option(
        None,
        help="Weights tag or checkpoint file, if it has moved; default: as recorded.",
        group="Teacher",
        role="execution",
    )
    sample: int = option(
        64,
        help="Number of targets that the teacher computes again, for comparison; 0: none.",
        least=0,
        group="Scoring",
        unit="targets",
    )
    min_cosine: float = option(
        0.99,
        help="Smallest cosine between a stored token and the same token computed again. A fitted "
        "codec (high, joint, …) may be off by its own error and by this angle.",
        group="Scoring",
        unit="cosine",
    )
    seed: int = option(0, help="Seed of the sample.", least=0, group="Scoring", unit="number")
    device: str = common.device("Where the teacher runs")
    workers: int = common.workers("Threads. Each checks one unit at a time.")
    repair: bool = option(default=False, help="Extract damaged units again.", group="Output")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.min_cosine <= 1:
            raise ConfigError(f"--min-cosine {self.min_cosine} is no cosine; give one up to 1")


run = lazily("milan_pipeline.stages.verify.report:verify", stoppable=True)
command = stage_command(
    "verify",
    Verify,
    run=run,
    dry_run=None,
    example="milan-pipeline verify targets.zarr --sample 256",
)
