"""What `submit` does: writes the scripts and hands Slurm those of jobs that are left."""

import shlex

import click

from milan_pipeline import storage
from milan_pipeline.slurm import Queued, in_ranges, queued_jobs, require_slurm, submit_script
from stages.submit import Submit
from stages.submit_chain import Job, jobs_left
from stages.submit_scripts import (
    batch_script,
    job_name,
    log_folder,
    recipe_copy,
    script_path,
)


def submit(config: Submit) -> None:
    """Write the scripts and submit the jobs that are left, each after the one before it.

    Raises:
        ConfigError, MismatchError: a job would be refused.
        MissingDataError: there is no Slurm here, or there are no images.
        StorageError: Slurm refuses a job.
    """
    require_slurm()
    jobs = jobs_left(config)
    if not jobs:
        click.echo(f"{config.out}: nothing to do, every stage is done")
        return
    names = [job_name(config, job.name) for job in jobs]
    queued = queued_jobs(names)
    # What waits in the queue waits for what is before it, or has seen it end well.
    last = max((number for number, name in enumerate(names) if name in queued), default=0)
    _write(config, jobs)
    ids: list[str] = []
    after: list[str] = []
    after_any: list[str] = []
    for number, (job, name) in enumerate(zip(jobs, names, strict=True)):
        there = queued.get(name)
        if number < last or (there and not _tasks_left(job, there)):
            waits = there.job if there else "what waits for it"
            click.echo(f"{job.name}: {waits} is in the queue already")
            after, after_any = [there.job] if there else [], []
        else:
            tasks = _tasks_left(job, there)
            script = script_path(config, job.name)
            new = submit_script(script, after=after, after_any=after_any, array=tasks)
            click.echo(f"{job.name}: {new}{_of_parts(job, tasks)}")
            # Tasks of an array that has lost some: they no longer succeed as a whole.
            after, after_any = [new], [there.job] if there else []
        ids += after + after_any
    for line in _where_to_look(config, ids):
        click.echo(line)


def describe(config: Submit) -> None:
    """Print the scripts of the jobs that are left."""
    jobs = jobs_left(config)
    for job in jobs:
        click.echo(f"# {script_path(config, job.name)}{_of_parts(job, job.tasks)}")
        click.echo(batch_script(config, job))
    click.echo(f"{config.out}: {len(jobs)} jobs to submit")


def _write(config: Submit, jobs: list[Job]) -> None:
    log_folder(config).mkdir(parents=True, exist_ok=True)
    storage.put_bytes(str(recipe_copy(config)), config.recipe_file.read_bytes())
    for job in jobs:
        text = batch_script(config, job)
        storage.put_bytes(str(script_path(config, job.name)), text.encode())


def _tasks_left(job: Job, there: Queued | None) -> tuple[int, ...] | None:
    """Return the tasks of an array that are not in the queue; None for a single job."""
    if job.tasks is None:
        return None
    return tuple(task for task in job.tasks if there is None or task not in there.tasks)


def _of_parts(job: Job, tasks: tuple[int, ...] | None) -> str:
    return "" if tasks is None else f", tasks {in_ranges(tasks)} of {job.parts}"


def _where_to_look(config: Submit, ids: list[str]) -> list[str]:
    return [
        f"queue: squeue --jobs {','.join(ids)}",
        f"extraction: milan-pipeline status {shlex.quote(config.store)}",
        f"logs: {log_folder(config)}",
    ]
