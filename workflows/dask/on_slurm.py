"""Run a stage on Dask workers that are Slurm jobs, as many as it has work for.

    python -m milan_pipeline.workflows.dask.on_slurm --config site.yaml --most 16 -- \
        milan-pipeline extract-targets --images s3://… --out s3://… --teacher …

`--scheduler ADDRESS` is added to the command. The scheduler runs in this process; its
jobs are submitted while units wait, and cancelled when the command ends. What they need to know
about the site is in the YAML file or given as options.
"""

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Protocol

import dask
from dask_jobqueue.slurm import SLURMCluster

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.main import EXIT_FAILED, exit_with
from milan_pipeline.cli.options import arguments, option, require_least
from milan_pipeline.cluster.dask_client import NO_PROFILER
from milan_pipeline.cluster.launch import passing_signals_on
from milan_pipeline.core.console import note, report
from milan_pipeline.errors import ConfigError

TARGET_SECONDS = "1s"
"""The less, the sooner Dask asks for more jobs: it sees two units for each worker, not all."""

PREEMPTED = {"distributed.scheduler.allowed-failures": 100}
"""Deaths of workers with it that a unit survives: of jobs that may be preempted, three are few."""

PROLOGUE = tuple(
    f"export DASK_{name.upper().replace('.', '__').replace('-', '_')}={value}"
    for name, value in NO_PROFILER.items()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnSlurm:
    """Run COMMAND, a stage that has --scheduler, on Dask workers that are Slurm jobs.

    The command and its options follow two dashes. The exit code is the command's. --dry-run shows
    the job script and submits nothing.
    """

    command: tuple[str, ...] = arguments()
    most: int = option(8, help="Jobs at a time, at most.", least=1)
    fewest: int = option(0, help="Jobs to keep while there is nothing to do.", least=0)
    queue: str | None = option(None, help="Partition; default: the site's.")
    account: str | None = option(None, help="Account that pays; default: the site's.")
    cores: int = option(4, help="CPU cores of a job.", least=1)
    processes: int = option(
        1, help="Workers in a job, which share its cores and memory; with GPUs one.", least=1
    )
    memory: str = option("16GB", help="Memory of a job.")
    gpus: int = option(0, help="GPUs of a job; a worker uses one.", least=0)
    walltime: str = option("04:00:00", help="Time limit of a job; a unit must fit well into it.")
    directive: tuple[str, ...] = option(
        (), help="Another #SBATCH line of the job script, e.g. --qos=long; repeat it for more."
    )
    prologue: tuple[str, ...] = option(
        (), help="Line of the job script before the worker starts; repeat it for more."
    )
    python: str = option(sys.executable, help="Python on the compute nodes.")
    interface: str | None = option(
        None, help="Network interface that workers and scheduler meet on, e.g. ib0."
    )
    host: str | None = option(
        None, help="Address that the scheduler listens on, if not that of --interface."
    )
    dashboard_port: int = option(8787, help="Port of the dashboard; 0: any that is free.", least=0)
    log_directory: str = option("slurm-logs", help="Folder for the output of jobs.")
    local_directory: str | None = option(None, help="Folder on a node's own disk for Dask.")

    def __post_init__(self) -> None:
        require_least(self)
        if self.fewest > self.most:
            raise ConfigError(f"--fewest {self.fewest} is above --most {self.most}; give less")
        if self.gpus and self.processes > 1:
            raise ConfigError(
                f"--processes {self.processes} with --gpus would all use the first GPU; leave it "
                "out, and ask for more jobs by --most"
            )
        if any(word.split("=")[0] in {"--scheduler", "--processes"} for word in self.command):
            raise ConfigError("the command gets its --scheduler here; leave out who does units")


class Cluster(Protocol):
    """The part of a Dask cluster that is used here; `SLURMCluster` and `LocalCluster` have it."""

    @property
    def scheduler_address(self) -> str:
        """Address for clients and workers."""

    @property
    def dashboard_link(self) -> str:
        """Address for a browser."""


@contextlib.contextmanager
def slurm_cluster(config: OnSlurm) -> Iterator[SLURMCluster]:
    """Start a scheduler here that has not submitted jobs yet; cancel its jobs at the end."""
    scheduler = {"dashboard_address": f":{config.dashboard_port}"}
    if config.host is not None:
        scheduler["host"] = config.host
    gpus = [f"--gres=gpu:{config.gpus}"] if config.gpus else []
    # A GPU does one unit at a time: others are for other workers, and make Dask ask for more jobs.
    threads = ["--nthreads", "1"] if config.gpus else []
    with (
        dask.config.set({**NO_PROFILER, **PREEMPTED}),
        SLURMCluster(
            queue=config.queue,
            account=config.account,
            cores=config.cores,
            processes=config.processes,
            memory=config.memory,
            walltime=config.walltime,
            job_extra_directives=[*gpus, *config.directive],
            job_script_prologue=[*PROLOGUE, *config.prologue],
            python=config.python,
            worker_extra_args=threads,
            interface=config.interface,
            scheduler_options=scheduler,
            log_directory=config.log_directory,
            local_directory=config.local_directory,
        ) as cluster,
    ):
        yield cluster


def run_command(command: tuple[str, ...], cluster: Cluster) -> int:
    """Run a stage on a cluster and return its exit code; stop signals are passed on to it.

    Raises:
        ConfigError: there is no such command.
    """
    note(f"Dask's dashboard: {cluster.dashboard_link}")
    started: list[subprocess.Popen[bytes]] = []
    with passing_signals_on(started):
        try:
            words = [*command, "--scheduler", cluster.scheduler_address]
            started.append(subprocess.Popen(words))  # noqa: S603 - the user's own command
        except OSError as error:
            raise ConfigError(f"{command[0]} cannot be run ({error}); name a command") from error
        code = started[0].wait()
    return code if code >= 0 else EXIT_FAILED


def run(config: OnSlurm) -> None:
    """Run the command and exit with its exit code."""
    with slurm_cluster(config) as cluster:
        cluster.adapt(
            minimum_jobs=config.fewest, maximum_jobs=config.most, target_duration=TARGET_SECONDS
        )
        code = run_command(config.command, cluster)
    sys.exit(code)


def dry_run(config: OnSlurm) -> None:
    """Show the job script."""
    with slurm_cluster(config) as cluster:
        report(cluster.job_script().splitlines())


command = stage_command("on-slurm", OnSlurm, run=run, dry_run=dry_run)

if __name__ == "__main__":
    exit_with(command, sys.argv[1:], "python -m milan_pipeline.workflows.dask.on_slurm")
