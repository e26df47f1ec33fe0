"""Whoever is killed at work is dead to `status` at once, and whoever is told to stop is not."""

import signal
from pathlib import Path

import pytest

from milan_pipeline.errors import MilanError
from milan_pipeline.report.folder_status import FolderStatus, folder_status
from tests.faults import jobs
from tests.faults.campaign import chance, scaled
from tests.faults.jobs import Inputs, Job

JOBS = [jobs.EXTRACT, jobs.PACK_TARGETS, jobs.PRETRAIN]
KILLS = scaled(10, 1)


def status(out: Path) -> FolderStatus | None:
    """Ask how far an output is; None before it is there."""
    try:
        return folder_status(str(out))
    except MilanError:
        return None


def is_running(out: Path) -> bool:
    found = status(out)
    return found is not None and found.state == "running"


def killed_at_work(job: Job, inputs: Inputs, out: Path, seconds: float) -> FolderStatus | None:
    """Kill a job that long after it began to work; return its status then.

    Returns:
        None if it had ended, or had nothing left to do but to end.
    """
    with job.start(inputs, out) as victims:
        victims.at_work(lambda: is_running(out))
        if victims.ended(seconds):
            return None
        victims.kill()
    found = status(out)
    return None if found is not None and found.done == found.total else found


@pytest.mark.parametrize("job", JOBS, ids=[job.name for job in JOBS])
def test_killed_at_random(job: Job, inputs: Inputs, tmp_path: Path) -> None:
    moments, longest = chance(f"status {job.name}"), inputs.undisturbed(job).seconds / 2
    seen: list[str] = []
    for number in range(10 * KILLS):
        found = killed_at_work(job, inputs, tmp_path / f"{number}", moments.uniform(0, longest))
        if found is None:
            longest /= 2
        else:
            seen.append(found.state)
        if len(seen) == KILLS:
            break
    assert seen == ["dead"] * KILLS


def test_a_second_ctrl_c_leaves_a_run_interrupted(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with jobs.PRETRAIN.start(inputs, out) as victims:
        victims.at_work(lambda: is_running(out))
        victims.signal(signal.SIGINT)
        victims.at_work(lambda: '"stopping"' in (out / "progress/pretrain.json").read_text())
        victims.signal(signal.SIGINT)
        victims.codes()
    assert folder_status(str(out)).state == "interrupted"
