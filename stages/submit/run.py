"""Write the scripts of the jobs that are left, and submit them to Slurm."""

import shlex

from milan_pipeline import storage
from milan_pipeline.cluster.slurm import (
    Queued,
    in_ranges,
    queued_jobs,
    require_slurm,
    submit_script,
)
from milan_pipeline.core.console import is_verbose, say, say_nothing_to_do
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.submit.chain import Job, jobs_left
from milan_pipeline.stages.submit.command import Submit
from milan_pipeline.stages.submit.scripts import (
    batch_script,
    job_name,
    log_folder,
    name_ending,
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
        say_nothing_to_do(config.out, "every stage is done")
        return
    names, queued = [job_name(config, job) for job in jobs], queued_jobs(name_ending(config))
    _refuse_other_parts(jobs, set(queued).difference(names))
    # A queued job waits for those before it, or they have ended well.
    last = max((number for number, name in enumerate(names) if name in queued), default=0)
    _write(config, jobs)
    ids: list[str] = []
    submitted: dict[str, str] = {}
    queueing: dict[str, list[str]] = {}
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    for number, (job, name) in enumerate(zip(jobs, names, strict=True)):
        there = queued.get(name, Queued(()))
        tasks = _tasks_left(job, there)
        if number < last and not there.jobs:
            say(f"{job.name}: not submitted, as {names[last]} is in the queue")
        elif number < last or (there.jobs and not tasks):
            say(f"{job.name}: {', '.join(there.jobs)} is in the queue already")
            queueing[job.name] = list(there.jobs)
            # An array of which a task failed never succeeds as a whole; the next job itself refuses
            # input that is not done.
            after, after_any = ((), there.jobs) if tasks is not None else (there.jobs, ())
        else:
            script = script_path(config, job.name)
            new = submit_script(script, after=after, after_any=after_any, array=tasks)
            say(f"{job.name}: {new}{_of_parts(job, tasks)}")
            submitted[job.name] = new
            after, after_any = (new,), there.jobs
        ids += [job for job in (*after, *after_any) if job not in ids]
    say(
        "\n".join(_where_to_look(config, ids)),
        out=config.out, submitted=submitted, in_queue=queueing, logs=str(log_folder(config)),
    )  # fmt: skip


def describe(config: Submit) -> None:
    """Print the jobs that are left and what each waits for; with --verbose, their scripts too."""
    jobs = jobs_left(config)
    scripts = {job.name: batch_script(config, job) for job in jobs}
    before = ["nothing", *scripts]
    for job, other in zip(jobs, before, strict=False):
        say(f"{job.name}: after {other}{_of_parts(job, job.tasks)}")
        if is_verbose():
            say(f"# {script_path(config, job.name)}\n{scripts[job.name]}")
    hint = "" if is_verbose() or not jobs else "; --verbose prints their scripts"
    waits = dict(zip(scripts, [None, *scripts], strict=False))
    said = f"{config.out}: {len(jobs)} jobs to submit{hint}"
    say(said, out=config.out, jobs=scripts, waits_for=waits)


def _refuse_other_parts(jobs: list[Job], others: set[str]) -> None:
    """Refuse another number of parts than that of tasks in the queue.

    Raises:
        ConfigError: there are such tasks.
    """
    parts = next((job.parts for job in jobs if job.parts is not None), None)
    for name in others:
        if parts is not None and "-extract-of-" in name:
            raise ConfigError(
                f"--parts {parts} is not what {name} in the queue has; give its number, or submit "
                "again when it has ended"
            )


def _write(config: Submit, jobs: list[Job]) -> None:
    log_folder(config).mkdir(parents=True, exist_ok=True)
    storage.put_bytes(str(recipe_copy(config)), config.recipe_file.read_bytes())
    for job in jobs:
        text = batch_script(config, job)
        storage.put_bytes(str(script_path(config, job.name)), text.encode())


def _tasks_left(job: Job, there: Queued) -> tuple[int, ...] | None:
    """Return the tasks of an array that are not in the queue; None for a single job."""
    if job.tasks is None:
        return None
    return tuple(task for task in job.tasks if task not in there.tasks)


def _of_parts(job: Job, tasks: tuple[int, ...] | None) -> str:
    return "" if tasks is None else f", tasks {in_ranges(tasks)} of {job.parts}"


def _where_to_look(config: Submit, ids: list[str]) -> list[str]:
    return [
        f"queue: squeue --jobs {','.join(ids)}",
        f"progress: milan-pipeline status {shlex.quote(str(config.folder))}",
        f"logs: {log_folder(config)}",
    ]
