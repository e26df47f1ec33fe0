"""Batch scripts, made from the templates in `workflows/slurm` and the options."""

import hashlib
import shlex
import string
from importlib.resources import files
from pathlib import Path

from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.stages.submit.chain import Job
from milan_pipeline.stages.submit.command import Submit

WARNING_SECONDS = 120
"""Before a job's time runs out: enough to finish a step or a unit and write a checkpoint."""


class BatchTemplate(string.Template):
    """A template whose `@@name` leaves the shell its own `$name`."""

    delimiter = "@@"


def name_ending(config: Submit) -> str:
    """Return the ending of the names of all jobs of an output folder, and of no others."""
    return f"-{content_hash({'out': str(config.folder)})[:8]}"


def job_name(config: Submit, job: Job) -> str:
    """Name a job in Slurm; tasks of another number of parts are other tasks."""
    parts = "" if job.parts is None else f"-of-{job.parts}"
    return f"milan-{job.name}{parts}{name_ending(config)}"


def script_path(config: Submit, job: str) -> Path:
    """Return where a job's script is written."""
    return config.folder / "slurm" / f"{job}.sbatch"


def recipe_copy(config: Submit) -> Path:
    """Return the path of the jobs' own copy of the recipe."""
    digest = hashlib.sha256(config.recipe_file.read_bytes()).hexdigest()[:8]
    return config.folder / "slurm" / f"recipe-{digest}.yaml"


def log_folder(config: Submit) -> Path:
    """Return the folder of the jobs' output."""
    return config.folder / "slurm" / "logs"


def batch_script(config: Submit, job: Job) -> str:
    """Write out a job's script."""
    values = {
        "directives": "\n".join(
            f"#SBATCH {shlex.quote(word)}" for word in _directives(config, job)
        ),
        "setup": "\n".join(config.setup),
        "container": shlex.join(shlex.split(config.container or "")),
        "options": shlex.join(("--config", str(recipe_copy(config)), *job.options)),
        "processes": str(config.processes),
        "run": shlex.quote(job.run or ""),
        "output": shlex.quote(job.output or ""),
        "requeues": shlex.quote(str(config.folder / "slurm" / "requeues" / job.name)),
        "parts": str(job.parts),
    }
    shared = {name: _filled(f"{name}.sh", values) for name in ("resume", "torchrun")}
    return _filled(f"{job.name}.sbatch", values | shared)


def _filled(template: str, values: dict[str, str]) -> str:
    text = files("milan_pipeline.workflows").joinpath("slurm", template).read_text(encoding="utf-8")
    return BatchTemplate(text).substitute(values).rstrip("\n") + "\n"


def _directives(config: Submit, job: Job) -> list[str]:
    each = "%x-%A-%a" if job.tasks is not None else "%x-%j"
    logs = str(log_folder(config)).replace("%", "%%")  # which begins Slurm's own words
    words = [
        f"--job-name={job_name(config, job)}",
        f"--output={logs}/{each}.out",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{WARNING_SECONDS}",
        f"--nodes={config.nodes if job.run else 1}",
        "--ntasks-per-node=1",
    ]
    for name in ("account", "partition", "time", "cpus_per_task"):
        value = getattr(config, name)
        words += [f"--{name.replace('_', '-')}={value}"] if value else []
    if job.on_gpu and config.gpus:
        words.append(f"--gpus-per-node={config.gpus if job.run else 1}")
    return words + config.words_for(job.name)
