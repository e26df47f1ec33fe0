"""Real processes are killed with SIGKILL at drawn moments; a rerun ends in the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import run_cli, write_picture
from tests.small_labels import write_coloured
from tests.stages.small_finetune import TINY_VIT, outcome
from tests.stages.small_pretrain import TINY_STUDENT

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-c", "from milan_pipeline.cli import main; main()")
TIMES = ("started", "seconds")
OF_TIMES = {"tensorboard", "progress"}
"""Folders whose files tell of times: events, and the reports that `status` reads."""
POLL = 0.01
GIVE_UP = 120.0


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Forty pictures in eight image shards: enough units to be killed between and within."""
    root = tmp_path_factory.mktemp("kills")
    for number in range(40):
        write_picture(root / "pictures" / f"{number:02d}.jpg", number, (320, 240))
    run_cli("pack-images", root / "pictures", root / "shards", "--samples-per-shard", 5)
    return root / "shards"


def extract(shards, clip, out):
    return [
        "extract-targets", "--images", shards, "--out", out, "--views", 3, "--workers", 1,
        "--teacher", f"local-dir:{clip}", "--batch-size", 1,
    ]  # fmt: skip


def pack(store, out):
    return ["pack-targets", "--targets", store, "--out", out, "--workers", 1]


def transcode(store, out):
    return ["transcode", store, out, "--codec", "vector:bytes=4", "--workers", 1]


def pretrain(shards, targets, out):
    return [
        "pretrain", "--images", shards, "--targets", targets, "--out", out,
        *TINY_STUDENT, "--batch-size", 8, "--epochs", 24, "--checkpoint-every", 5, "--log-every", 1,
        "--workers", 1,
    ]  # fmt: skip


def start(words, **options):
    command = [*COMMAND, *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, **options)


def run_until(words, reached, *, patience, signal_to=os.kill):
    """Start a command and kill it a drawn moment after `reached()` holds; return the exit code."""
    with start(words, start_new_session=True) as process:
        waited = 0.0
        while process.poll() is None and not reached() and waited < GIVE_UP:
            waited += POLL
            ended(process, POLL)
        if not ended(process, patience):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def ended(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def finish(words):
    with start(words) as process:
        assert process.wait() == 0


def kill_and_rerun(words, progress, *, kills, seed):
    """Kill again and again, each time after some more progress; then let it end.

    Args:
        words: the command.
        progress: tells how far the output has come.
        kills: the progress at which each process is killed.
        seed: of the moments after that.

    Returns:
        The progress that each kill left behind.
    """
    moments = random.Random(seed)
    left = []
    for goal in kills:
        patience = moments.uniform(0, 0.03)
        code = run_until(words, lambda goal=goal: progress() >= goal, patience=patience)
        assert code == -signal.SIGKILL
        left.append(progress())
    finish(words)
    return left


def files(folder):
    """Every output file's bytes; temporaries and what tells of times aside."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not path.name.endswith(".tmp") and not OF_TIMES & set(name.parts):
            found[str(name)] = path.read_bytes()
    return found


def without_times(found, record):
    document = json.loads(found.pop(record))
    for name in (*TIMES, "counts"):  # counts tell, among others, what this process did
        document.pop(name)
    document["config"].pop("out")
    return found | {record: json.dumps(document)}


def written(folder):
    """How many files a stage has written so far, half-written ones included."""
    return sum(1 for path in Path(folder).rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def store(shards, tiny_clip, tmp_path_factory):
    """An undisturbed target store."""
    out = tmp_path_factory.mktemp("undisturbed") / "targets.zarr"
    finish(extract(shards, tiny_clip, out))
    return out


@pytest.fixture(scope="module")
def targets(store, tmp_path_factory):
    """Undisturbed target shards."""
    out = tmp_path_factory.mktemp("undisturbed-shards") / "targets"
    finish(pack(store, out))
    return out


def test_extract_targets(shards, tiny_clip, store, tmp_path):
    out = tmp_path / "targets.zarr"
    total = written(store)
    kills = [2, total // 4, total // 2, 3 * total // 4]
    words = extract(shards, tiny_clip, out)
    left = kill_and_rerun(words, lambda: written(out), kills=kills, seed=1)
    assert all(0 < count < total for count in left)
    assert without_times(files(out), "extract-targets.json") == without_times(
        files(store), "extract-targets.json"
    )


def test_pack_targets(store, targets, tmp_path):
    out = tmp_path / "targets"
    total = written(targets)
    kills = [1, total // 3, 2 * total // 3]
    left = kill_and_rerun(pack(store, out), lambda: written(out), kills=kills, seed=2)
    assert all(0 < count < total for count in left)
    assert without_times(files(out), "pack-targets.json") == without_times(
        files(targets), "pack-targets.json"
    )


def test_transcode(store, tmp_path):
    whole, out = tmp_path / "whole.zarr", tmp_path / "targets.zarr"
    finish(transcode(store, whole))
    total = written(whole)
    kills = [2, total // 4, total // 2, 3 * total // 4]
    left = kill_and_rerun(transcode(store, out), lambda: written(out), kills=kills, seed=4)
    assert all(0 < count < total for count in left)
    assert without_times(files(out), "transcode.json") == without_times(
        files(whole), "transcode.json"
    )


@pytest.fixture(scope="module")
def trained(shards, targets, tmp_path_factory):
    """An undisturbed run of 120 steps."""
    out = tmp_path_factory.mktemp("undisturbed-run") / "run"
    finish(pretrain(shards, targets, out))
    return out


def logged(run):
    path = Path(run) / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def require_same_run(ours, theirs):
    for name in ("encoder.safetensors", "encoder.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    last = "checkpoints/step-00000120"
    assert files(ours / last) == files(theirs / last)
    assert [row["step"] for row in logged(ours)] == list(range(1, 121))
    assert [row["loss"] for row in logged(ours)] == [row["loss"] for row in logged(theirs)]
    assert json.loads((ours / "state.json").read_text())["state"] == "done"


def test_pretrain(shards, targets, trained, tmp_path):
    out = tmp_path / "run"
    words = pretrain(shards, targets, out)

    def steps():
        return len(logged(out))

    left = kill_and_rerun(words, steps, kills=[1, 23, 60, 99], seed=3)
    assert all(0 < count < 120 for count in left)
    require_same_run(out, trained)


def test_pretrain_stops_in_order_when_all_its_processes_are_signalled(
    shards, targets, trained, tmp_path
):
    """As SLURM does it: SIGTERM comes to the loader processes too."""
    out = tmp_path / "run"
    words = pretrain(shards, targets, out)
    with start(words, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(logged(out)) < 20:
            ended(process, POLL)
        os.killpg(process.pid, signal.SIGTERM)
        _, error = process.communicate(timeout=GIVE_UP)
    assert process.returncode == 75
    assert error.startswith("Interrupted: SIGTERM received")
    assert 20 <= json.loads((out / "state.json").read_text())["step"] < 120
    finish(words)
    require_same_run(out, trained)


def finetune(root, out):
    return [
        "finetune", *TINY_VIT, "--train", root / "train", "--val", root / "val", "--out", out,
        "--batch-size", 4, "--epochs", 20, "--eval-every", 2, "--checkpoint-every", 5,
        "--log-every", 1, "--base-lr", 0.02, "--workers", 1,
    ]  # fmt: skip


def test_finetune(tmp_path):
    """Of 60 steps, with an evaluation each 6 of them and a checkpoint each 5."""
    write_coloured(tmp_path / "train", 4)
    write_coloured(tmp_path / "val", 3, seed=1, noise=300)
    whole, out = tmp_path / "whole", tmp_path / "run"
    finish(finetune(tmp_path, whole))
    words = finetune(tmp_path, out)
    left = kill_and_rerun(words, lambda: len(logged(out)), kills=[1, 20, 47], seed=5)
    assert all(0 < count < 60 for count in left)
    assert outcome(out) == outcome(whole)
    assert [row["loss"] for row in logged(out)] == [row["loss"] for row in logged(whole)]


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_pretrain_fails_when_a_loader_process_is_killed_and_goes_on_when_run_again(
    shards, targets, trained, tmp_path
):
    out = tmp_path / "run"
    words = pretrain(shards, targets, out)
    with start(words, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len(logged(out)) < 20:
            ended(process, POLL)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        _, error = process.communicate(timeout=GIVE_UP)
    assert process.returncode == 1
    assert "Error: a loader process died" in error
    finish(words)
    require_same_run(out, trained)
