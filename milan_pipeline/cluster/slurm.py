"""Slurm, by its own commands: what is in the queue, and how a job is submitted."""

import dataclasses
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from milan_pipeline.errors import MissingDataError, StorageError


def require_slurm() -> None:
    """Refuse to go on where Slurm's commands are not.

    Raises:
        MissingDataError: they are not installed here.
    """
    if shutil.which("sbatch") is None:
        raise MissingDataError(
            "sbatch is not on this machine's PATH; run `submit` where jobs are submitted from, or "
            "give --dry-run to see the scripts"
        )


@dataclasses.dataclass(frozen=True)
class Queued:
    """What waits or runs under one name: jobs' ids and, of arrays, their tasks."""

    jobs: tuple[str, ...]
    tasks: frozenset[int] = frozenset()


def queued_jobs(ending: str) -> dict[str, Queued]:
    """Return this user's jobs in the queue whose names have an ending, by name.

    Raises:
        StorageError: Slurm does not answer.
    """
    listing = _output_of(["squeue", "--me", "--noheader", "--array", "--format=%F|%K|%j"])
    found: dict[str, Queued] = {}
    for line in listing.splitlines():
        job, task, name = line.split("|", 2)
        if name.endswith(ending):
            before = found.get(name, Queued(()))
            tasks = before.tasks | ({int(task)} if task.isdecimal() else set())
            found[name] = Queued(tuple(dict.fromkeys((*before.jobs, job))), tasks)
    return found


def submit_script(
    script: Path,
    *,
    after: Sequence[str],
    after_any: Sequence[str] = (),
    array: Sequence[int] | None,
) -> str:
    """Submit a batch script and return the job's id.

    Args:
        script: the file.
        after: ids of jobs that must have succeeded; if one does not, this one is cancelled.
        after_any: ids of jobs that must have ended, however they did.
        array: task numbers; None for a single job.

    Raises:
        StorageError: Slurm refuses.
    """
    words = ["sbatch", "--parsable"]
    awaited = [f"afterok:{job}" for job in after] + [f"afterany:{job}" for job in after_any]
    if awaited:
        words += [f"--dependency={','.join(awaited)}", "--kill-on-invalid-dep=yes"]
    if array is not None:
        words += [f"--array={in_ranges(array)}"]
    # With --parsable: the id and, where clusters are federated, the cluster's name.
    return _output_of([*words, str(script)]).strip().partition(";")[0]


def in_ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers as sbatch's --array takes them: `0-3,7,9-10`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


def _output_of(words: list[str]) -> str:
    """Run one of Slurm's commands and return what it says."""
    try:
        answer = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError as error:
        raise StorageError(f"{words[0]} is not on this machine's PATH; install Slurm") from error
    except subprocess.CalledProcessError as error:
        reason = " ".join((error.stderr or error.stdout).split())
        raise StorageError(
            f"`{' '.join(words)}` failed ({reason}); correct the site's options, or ask again "
            "when Slurm answers"
        ) from error
    return answer.stdout
