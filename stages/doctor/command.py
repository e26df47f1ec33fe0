"""`milan-pipeline doctor`: what this machine has, and what to set."""

import dataclasses

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import argument, option
from milan_pipeline.stages.shared import common_options as common


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examine:
    """Say what this machine has for the pipeline, and what to set where that helps.

    It looks at the GPU, the fast precisions, the cores, their load, the threads, the shared memory,
    the disk of FOLDER and the hub of weights. Each line begins with ok, look or bad, and the line
    below says what helps. It takes a few seconds. 64 MB are written to FOLDER and removed again.
    """

    folder: str = argument(".")
    hub: bool = option(
        default=True,
        help="Ask whether the hub of weights answers within three seconds.",
        group="This machine",
    )
    device: str = common.device("Where the precisions are timed")


run = lazily("milan_pipeline.stages.doctor.report:examine")
command = stage_command(
    "doctor",
    Examine,
    run=run,
    dry_run=None,
    example="milan-pipeline doctor data",
    takes_recipes=False,
)
