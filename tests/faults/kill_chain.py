"""Kill a job at a drawn instant, run it again, kill that, until one ends; compare and count.

Counted as harmless: a kill after which the job, run again, ended in what an undisturbed one gives.
"""

import random
import signal
from pathlib import Path

from tests.faults.campaign import COUNTS, chance
from tests.faults.jobs import Inputs, Job
from tests.faults.sameness import difference
from tests.faults.victims import Victims

MOST_IN_A_ROW = 6
"""Kills of one output: after these the job may end."""

Marks = dict[str, tuple[int, int]]


def kill_at_random(job: Job, inputs: Inputs, place: Path, kills: int) -> None:
    """Kill a job that many times in all, over as many outputs as that takes, and count.

    Args:
        job: what is killed.
        inputs: what it reads.
        place: folder for its outputs.
        kills: how many.
    """
    moments = chance(f"kill {job.name}")
    done = 0
    while done < kills:
        out = place / f"out-{done:03d}"
        done += _chain(job, inputs, out, moments, min(kills - done, MOST_IN_A_ROW))
    for kind in COUNTS.keys() & kinds_of(job):
        COUNTS[kind].require_none_failed()


def kinds_of(job: Job) -> tuple[str, str]:
    """Return under which names kills are counted: before anything was written, and later."""
    return f"SIGKILL, {job.name}, before it wrote", f"SIGKILL, {job.name}, at work"


def _chain(job: Job, inputs: Inputs, out: Path, moments: random.Random, most: int) -> int:
    """Kill and rerun a job until it has ended; return how often it was killed."""
    right = inputs.undisturbed(job)
    killed: list[str] = []
    while True:
        before = _marks(out)
        with job.start(inputs, out) as victims:
            if len(killed) < most and not victims.ended(moments.uniform(0, right.seconds)):
                victims.kill()
            codes = victims.codes()
        if -signal.SIGKILL not in codes:
            break
        killed.append(kinds_of(job)[_marks(out) != before])
    if any(codes):
        problem, silent = f"a rerun ended with {codes}: {_last_words(victims)}", False
    else:
        problem, silent = difference(job.outcome(out), right.outcome), True
    for kind in killed:
        COUNTS[kind].tried += 1
        if problem:
            COUNTS[kind].fail(f"{out.name}, of {len(killed)} kills", problem, silent=silent)
        else:
            COUNTS[kind].harmless += 1
    return len(killed)


def _marks(out: Path) -> Marks:
    """Return when each file was written and its size; temporary ones come and go meanwhile."""
    found = {}
    for path in out.rglob("*"):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        found[str(path)] = (state.st_mtime_ns, state.st_size)
    return found


def _last_words(victims: Victims) -> str:
    return " / ".join(victims.said().splitlines()[-5:])
