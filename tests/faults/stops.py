"""Signal a stage half-way, see that it ends in order and leaves nothing, and run it again."""

import signal
import time
from pathlib import Path

from tests.faults.campaign import COUNTS
from tests.faults.jobs import Inputs, Job
from tests.faults.leftovers import processes_of, shared_memory_of
from tests.faults.sameness import difference, progress
from tests.faults.victims import PATIENCE, POLL, Victims

EXIT_INTERRUPTED = 75


def stop_and_go_on(job: Job, number: signal.Signals, inputs: Inputs, out: Path) -> None:
    """Signal all processes of a job half-way, as a terminal or a scheduler does, and count."""
    kind, right = f"{number.name}, {job.name}", inputs.undisturbed(job)
    half = progress(right.out) / 2
    COUNTS[kind].tried += 1
    with job.start(inputs, out) as victims:
        victims.at_work(lambda: progress(out) >= half)
        pids = {*victims.pids, *processes_of(victims.pids)}
        victims.signal(number)
        problems = [*_unorderly(victims), *_left_behind(victims.pids, pids)]
    problems += gone_on(job, inputs, out)
    if problems:
        COUNTS[kind].fail("half-way", "; ".join(problems))
    else:
        COUNTS[kind].harmless += 1
    COUNTS[kind].require_none_failed()


def gone_on(job: Job, inputs: Inputs, out: Path) -> list[str]:
    """Run a job again, to its end; say what is not as it must be."""
    with job.start(inputs, out) as victims:
        if any(victims.codes()):
            return [f"a rerun failed: {victims.said()}"]
    found = difference(job.outcome(out), inputs.undisturbed(job).outcome)
    return [found] if found else []


def _unorderly(victims: Victims) -> list[str]:
    codes, said = victims.codes(), victims.said()
    problems = []
    if set(codes) - {0, EXIT_INTERRUPTED} or EXIT_INTERRUPTED not in codes:
        problems.append(f"it ended with {codes}: {said}")
    if "Traceback" in said:
        problems.append(f"a traceback: {said}")
    return problems


def _left_behind(leaders: list[int], pids: set[int]) -> list[str]:
    """Say what is left of processes: helpers end with their parents, but after them."""
    patience = PATIENCE
    while processes_of(leaders) and patience > 0:
        time.sleep(POLL)
        patience -= POLL
    alive, shared = processes_of(leaders), shared_memory_of(pids)
    return [f"still there: {what}" for what in (alive, shared) if what]
