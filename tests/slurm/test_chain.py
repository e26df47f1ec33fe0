"""The demo's chain on a real Slurm of one node, undisturbed and disturbed: equal to a local run."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.slurm.chain import (
    MILAN,
    PARTS,
    STEPS,
    losses,
    outputs,
    slurm,
    states_of,
    steps_of,
    wait_for_all,
    wait_until,
)
from tests.slurm.one_node import NODE

pytestmark = pytest.mark.slurm
REQUEUE = ("scontrol", "requeue")
JOBS = ("init", "extract", "pack", "pretrain", "finetune")


def submit(cluster, world, name):
    """Submit the chain; return what was said and the ids of the jobs that were submitted."""
    words = [
        *MILAN, "submit", world / "recipe.yaml", "--images", world / "train",
        "--val", world / "test", "--out", world / name, "--parts", PARTS, "--gpus", 0,
        "--processes-per-node", 2, "--sbatch=--cpus-per-task=2",
        "--sbatch=extract:--cpus-per-task=1",
    ]  # fmt: skip
    command = [str(word) for word in words]
    answer = subprocess.run(command, env=cluster, check=False, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout, dict(re.findall(r"^(\w+): (\d+)(?:,.*)?$", answer.stdout, re.MULTILINE))


def require_same(world, name):
    assert outputs(world / name) == outputs(world / "here")
    for run in ("run", "finetune"):
        assert losses(world / name / run) == losses(world / "here" / run)


def test_the_chain_ends_as_a_local_run_does_and_is_submitted_once(cluster, world):
    said, jobs = submit(cluster, world, "by slurm")
    assert tuple(jobs) == JOBS
    assert f"extract: {jobs['extract']}, tasks 0-2 of 3" in said
    assert f"milan-pipeline status '{world}/by slurm'" in said
    again, none = submit(cluster, world, "by slurm")
    # The first stages may have ended meanwhile. The rest is in the queue, and nothing comes twice.
    assert ("is in the queue" in again, none) == (True, {})
    wait_for_all(cluster, list(jobs.values()))
    assert states_of(cluster, list(jobs.values())) == {"COMPLETED"}
    require_same(world, "by slurm")
    again, none = submit(cluster, world, "by slurm")
    assert "nothing to do, every stage is done" in again
    assert none == {}


def test_kills_a_lost_node_and_three_requeues_change_nothing(cluster, world):
    _, jobs = submit(cluster, world, "disturbed")
    out, array = world / "disturbed", jobs["extract"]
    in_hand = out / "targets.zarr/progress"
    wait_until(lambda: any(in_hand.glob("part-001*")), cluster)
    slurm(cluster, "scancel", "--signal=KILL", "--full", f"{array}_1")
    wait_for_all(cluster, [jobs["finetune"]])
    # What waited for the task that was killed was cancelled; the other tasks go on.
    assert states_of(cluster, [jobs["pretrain"], jobs["finetune"]]) == {"CANCELLED"}
    said, jobs = submit(cluster, world, "disturbed")
    assert f"extract: {jobs['extract']}, tasks 1 of 3" in said
    lose_the_node(cluster, jobs["extract"])
    own = ("scancel", "--batch", "--signal=USR1")  # as when time runs out: the job requeues itself
    for steps, words in ((10, REQUEUE), (STEPS // 3, own), (2 * STEPS // 3, REQUEUE)):
        stop_after(cluster, words, jobs["pretrain"], out / "run", steps)
    wait_for_all(cluster, list(jobs.values()))
    assert states_of(cluster, list(jobs.values())) == {"COMPLETED"}
    require_same(world, "disturbed")


def stop_after(cluster, words, job, run, steps):
    """Have a training job taken back when it has done so many steps."""
    wait_until(lambda: steps_of(run) > steps, cluster)
    slurm(cluster, *words, job)
    wait_until(lambda: state(run) == "interrupted", cluster)


def state(run: Path) -> str:
    return str(json.loads((run / "state.json").read_text())["state"])


def lose_the_node(cluster, job):
    """Set the node down while a job runs on it, and up again: Slurm starts the job once more."""
    wait_until(lambda: "RUNNING" in states_of(cluster, [job]), cluster)
    node = ("scontrol", "update", f"nodename={NODE}")
    slurm(cluster, *node, "state=down", "reason=test")
    wait_until(lambda: "RUNNING" not in states_of(cluster, [job]), cluster)
    slurm(cluster, *node, "state=resume")
