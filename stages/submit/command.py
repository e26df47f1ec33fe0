"""`milan-pipeline submit`: write a recipe's stages as Slurm jobs, and submit what is not done."""

import dataclasses
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import argument, count, option, require_least
from milan_pipeline.cli.recipes import find_recipe
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import inputs

JOBS = ("init", "extract", "pack", "pretrain", "finetune")
OWN = re.compile(
    r"--(array|dependency|job-name|nodes|ntasks|ntasks-per-node|open-mode|parsable|wrap)(=.*)?"
    r"|-[adJNn].*"
)
"""What `submit` itself says to sbatch: with other values its jobs are not in their order."""
WORD = re.compile(rf"(?:({'|'.join(JOBS)}):)?(-\S+)")


def require_shell(lines: Sequence[str]) -> None:
    """Refuse lines that the jobs' shell cannot read, if there is one here to ask.

    Raises:
        ConfigError: it cannot.
    """
    bash = shutil.which("bash")
    if not lines or bash is None:
        return
    text = "\n".join(lines) + "\n"
    words = [bash, "-n"]
    read = subprocess.run(words, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if read.returncode:
        why = read.stderr.strip().splitlines()[0].removeprefix(f"{bash}: ")
        raise ConfigError(f"--setup {' '.join(lines)!r} is no shell ({why}); correct it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit:
    """Submit a RECIPE to Slurm: extraction as a job array, packing, pretraining, fine-tuning.

    RECIPE is the name of an installed recipe, or a YAML file. Its other sections make no job. Jobs
    wait for each other. If their time runs out or they are preempted, they stop and go back into
    the queue. Submit again at any time: only what is neither done nor queued is submitted. Keep the
    options of your site in a file (--config site.yaml).
    """

    recipe: str = argument(look=find_recipe)
    images: str = option(
        help="Folder of image shards with manifest.json.", group="Input", look=inputs.image_shards
    )
    out: str = option(
        help="Folder for scripts, logs, targets, shards and runs; on shared storage.",
        group="Output",
    )
    val: str | None = option(
        None,
        help="Labelled images to score on, which fine-tuning needs; default: none, then nothing "
        "is fine-tuned.",
        group="Input",
        look=inputs.place,
    )
    targets: str | None = option(
        None, help="Target store; default: OUT/targets.zarr.", group="Output"
    )
    target_shards: str | None = option(
        None, help="Target shards; default: OUT/target-shards.", group="Output"
    )
    parts: int = count(
        16,
        "tasks",
        group="Several machines",
        help="Largest number of tasks in the array of the extraction.",
    )
    nodes: int = count(
        1, "nodes", group="Several machines", help="Number of nodes that train together."
    )
    gpus: int = option(
        1,
        help="GPUs on each node, for jobs that need them; 0: none.",
        least=0,
        group="Several machines",
        unit="GPUs",
    )
    processes_per_node: int | None = count(
        None,
        "processes",
        group="Several machines",
        help="Training processes on each node; default: one for each GPU, or one.",
    )
    cpus_per_task: int | None = count(
        None,
        "cores",
        group="Several machines",
        help="CPU cores of a job on each of its nodes; default: that of the site.",
    )
    account: str | None = option(
        None, help="Slurm account that pays; default: that of the user.", group="Slurm"
    )
    partition: str | None = option(
        None,
        help="Slurm partition, or several with commas; default: that of the site.",
        group="Slurm",
    )
    time: str | None = option(
        None,
        help="Time limit of a job, as sbatch takes it: 24:00:00; default: that of the partition.",
        group="Slurm",
    )
    sbatch: tuple[str, ...] = option(
        (),
        help="Another option of sbatch, for all jobs (--qos=low) or for one "
        "(pretrain:--time=48:00:00); may be repeated; default: none.",
        group="Slurm",
    )
    container: str | None = option(
        None,
        help="Words before each command that run it in a container: 'apptainer exec --nv IMAGE'; "
        "default: none.",
        group="Slurm",
    )
    setup: tuple[str, ...] = option(
        (),
        help="A line of shell at the start of each job: 'module load cuda'; may be repeated; "
        "default: none.",
        group="Slurm",
    )

    def __post_init__(self) -> None:
        require_least(self)
        if storage.local_path(self.out) is None:
            raise ConfigError(f"--out {self.out} is no local folder; give one on shared storage")
        if {"\n", "\r"} & set(str(self.folder)):
            raise ConfigError(
                f"--out {self.out!r} has a line break, which scripts of jobs cannot hold; "
                "give another"
            )
        for given in self.sbatch:
            found = WORD.fullmatch(given)
            if found is None:
                raise ConfigError(
                    f"--sbatch {given!r} is no option of sbatch; give --WORD=VALUE for all jobs, "
                    f"or JOB:--WORD=VALUE for one of {', '.join(JOBS)}"
                )
            if OWN.fullmatch(found[2]):
                raise ConfigError(
                    f"--sbatch {given!r} sets what submit itself tells sbatch; leave it out (it "
                    "has --parts and --nodes)"
                )
        if self.time is not None and not {":", "-"} & set(self.time):
            # YAML takes 24:00:00 for a number of seconds, Slurm takes a number for minutes.
            raise ConfigError(
                f"--time {self.time} has neither ':' nor '-'; give it as 24:00:00 or 2-00, within "
                "quotes where it stands in a YAML file"
            )
        try:
            shlex.split(self.container or "")
        except ValueError as error:
            raise ConfigError(f"--container {self.container!r}: {error}; correct it") from error
        require_shell(self.setup)

    @property
    def recipe_file(self) -> Path:
        """The recipe.

        Raises:
            ConfigError: there is none of that name.
        """
        return find_recipe(self.recipe)

    @staticmethod
    def absolute(place: str) -> str:
        """Name a place so that a job finds it, wherever that starts; URLs are as they are."""
        path = storage.local_path(place)
        return place if path is None else str(path.resolve())

    @property
    def folder(self) -> Path:
        """Where everything is written, as an absolute path: jobs may start elsewhere."""
        return Path(self.absolute(self.out))

    @property
    def store(self) -> str:
        """The target store."""
        return self.absolute(self.targets or storage.join(self.out, "targets.zarr"))

    @property
    def shards(self) -> str:
        """The folder of target shards."""
        return self.absolute(self.target_shards or storage.join(self.out, "target-shards"))

    @property
    def processes(self) -> int:
        """Training processes on each node."""
        return self.processes_per_node or max(1, self.gpus)

    def words_for(self, job: str) -> list[str]:
        """Return the options of sbatch that were given for a job, those of all jobs first."""
        found = [(found[1], found[2]) for found in map(WORD.fullmatch, self.sbatch) if found]
        for_all = [word for only, word in found if only is None]
        return for_all + [word for only, word in found if only == job]


run = lazily("milan_pipeline.stages.submit.run:submit")
dry_run = lazily("milan_pipeline.stages.submit.run:describe")
command = stage_command(
    "submit",
    Submit,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline submit imagenet1k-vit-b16 --images images/train --val images/val \\\n"
    "    --out /shared/milan --parts 32 --gpus 8 --time 24:00:00",
)
