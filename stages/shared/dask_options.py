"""Options of every stage whose units Dask workers can do; loads no torch, and Dask where asked."""

import dataclasses
from typing import Literal

from milan_pipeline.cli.options import count, option, require_least
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common


@dataclasses.dataclass(frozen=True, kw_only=True)
class DaskOptions:
    """Who does the units, if not this process."""

    scheduler: str | None = option(
        None,
        help="Address of a Dask scheduler. Its workers do the units; default: none.",
        role="execution",
        group="Several machines",
    )
    processes: int | None = count(
        None,
        "processes",
        group="Several machines",
        role="execution",
        help="Number of Dask processes on this machine, which share its GPUs or cores; default: "
        "none, this process does the units.",
    )
    threads: int | Literal["auto"] = common.threads(" Workers of --scheduler keep their own.")

    def __post_init__(self) -> None:
        require_least(self)
        if self.scheduler is None:
            return
        if self.processes is not None:
            raise ConfigError("--scheduler and --processes are two ways to do units; give one")
        from milan_pipeline.cluster.dask_client import require_address

        require_address(self.scheduler)

    @property
    def on_dask(self) -> bool:
        """Whether Dask workers do the units."""
        return self.scheduler is not None or self.processes is not None
