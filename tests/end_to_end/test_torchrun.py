"""Two real processes, started by torchrun or by `--processes`: stopped in order, gone on with."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.sameness import files
from tests.support.finetune import TINY_VIT, outcome, record
from tests.support.labelled import spoil, write_coloured
from tests.support.pretrain import TINY_STUDENT
from tests.support.processes import GIVE_UP, POLL, children, ended, logged

pytestmark = pytest.mark.slow

STEPS = 120
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "-m")


def command(shards, out):
    images, targets = shards
    return [
        "milan_pipeline", "pretrain", "--images", images, "--targets", targets, "--out", out,
        *TINY_STUDENT, "--batch-size", 8, "--epochs", STEPS // 3, "--checkpoint-every", 5,
        "--log-every", 1, "--workers", 1,
    ]  # fmt: skip


def start(words):
    environment = dict(os.environ)
    environment.pop("RANK", None)
    return subprocess.Popen(
        [str(word) for word in words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_to_the_end(words):
    with start(words) as process:
        said, error = process.communicate(timeout=GIVE_UP)
    assert process.returncode == 0, error
    return said


def stop_at(words, run, steps, send):
    """Start, call `send(process)` when so many steps are logged; return exit code and stderr."""
    with start(words) as process:
        while process.poll() is None and len(logged(run)) < steps:
            ended(process, POLL)
        send(process)
        _, error = process.communicate(timeout=GIVE_UP)
    state = json.loads((Path(run) / "state.json").read_text())
    assert (state["state"], steps <= state["step"] < STEPS) == ("interrupted", True), error
    assert (run / f"checkpoints/step-{state['step']:08d}").is_dir()
    return process.returncode, error


@pytest.fixture(scope="module")
def shards(image_shards, target_shards):
    """The folders of images and targets."""
    return image_shards, target_shards


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """An undisturbed run of two processes."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    said = run_to_the_end([sys.executable, "-m", *command(shards, out), "--processes", 2])
    assert said.count(f"{STEPS} steps") == 1
    return out


def require_same(run, whole):
    last = f"checkpoints/step-{STEPS:08d}"
    assert files(run / last) == files(whole / last)
    assert (run / "encoder.safetensors").read_bytes() == (
        whole / "encoder.safetensors"
    ).read_bytes()
    assert [row["loss"] for row in logged(run)] == [row["loss"] for row in logged(whole)]


def test_processes_of_torchrun_stop_in_order_and_go_on(shards, whole, tmp_path):
    words = [*TORCHRUN, *command(shards, tmp_path)]
    code, error = stop_at(words, tmp_path, 20, lambda torchrun: torchrun.terminate())
    assert error.count("Interrupted: SIGTERM received") == 2
    assert code == 1  # torchrun's own, whatever its processes say

    def to_one(torchrun):
        os.kill(children(torchrun.pid)[-1], signal.SIGUSR1)

    _, error = stop_at(words, tmp_path, 50, to_one)
    assert error.count("Interrupted: SIGUSR1 received") == 2
    assert "exitcode  : 75" in error
    run_to_the_end(words)
    require_same(tmp_path, whole)


def test_two_nodes_meet_and_end_as_two_processes_of_one(shards, whole, tmp_path):
    meet = ("--rdzv-backend", "c10d", "--rdzv-id", 1)
    words = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1, *meet,
        "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "-m", *command(shards, tmp_path),
    ]  # fmt: skip
    with start(words) as first, start(words) as second:
        ends = [node.communicate(timeout=GIVE_UP) for node in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), ends
    assert sum(said.count(f"{STEPS} steps") for said, _ in ends) == 1
    require_same(tmp_path, whole)


def test_the_launcher_exits_as_its_processes_do(shards, whole, tmp_path):
    words = [sys.executable, "-m", *command(shards, tmp_path), "--processes", 2]
    code, error = stop_at(words, tmp_path, 20, lambda own: own.send_signal(signal.SIGUSR1))
    assert code == 75
    assert error.count("Interrupted: SIGUSR1 received") == 2
    run_to_the_end(words)
    require_same(tmp_path, whole)


def test_a_wrong_option_or_a_killed_process_ends_all_processes(shards, tmp_path):
    words = [sys.executable, "-m", *command(shards, tmp_path), "--processes", 2]
    with start([*words, "--lanes", 1]) as process:
        _, error = process.communicate(timeout=GIVE_UP)
    assert process.returncode == 2
    assert "--lanes 1 cannot be shared by 2 processes" in error
    assert not (tmp_path / "config.json").exists()
    with start(words) as process:
        while process.poll() is None and len(logged(tmp_path)) < 20:
            ended(process, POLL)
        os.kill(children(process.pid)[1], signal.SIGKILL)
        _, error = process.communicate(timeout=GIVE_UP)
    assert process.returncode == 1
    assert "Error: another process of the run ended" in error
    assert "Error: process 1 was ended by SIGKILL, most often because memory ran out" in error


def test_a_stop_that_comes_while_waiting_for_the_others_is_heeded_at_once(shards, tmp_path):
    alone = os.environ | {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    alone |= {"MASTER_PORT": str(free_port())}
    words = [sys.executable, "-m", *command(shards, tmp_path)]
    with subprocess.Popen([str(word) for word in words], env=alone, stderr=subprocess.PIPE) as one:
        waits_for_others(int(alone["MASTER_PORT"]))
        one.terminate()
        _, error = one.communicate(timeout=GIVE_UP)
    assert one.returncode == 75
    assert b"SIGTERM received; nothing was done" in error


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def waits_for_others(port):
    """Return when the first process listens for the others."""
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        select.select([], [], [], POLL)


def test_processes_fine_tune_together_stop_in_order_and_go_on(tmp_path):
    write_coloured(tmp_path / "train", 8)
    write_coloured(tmp_path / "val", 5, seed=1, noise=300)
    for name in ("train/red/003.jpg", "val/blue/001.jpg"):
        spoil(tmp_path / name)

    def words(out):
        return [
            sys.executable, "-m", "milan_pipeline", "finetune", *TINY_VIT, "--processes", 2,
            "--train", tmp_path / "train", "--val", tmp_path / "val", "--out", out,
            "--batch-size", 8, "--epochs", 12, "--eval-every", 5, "--micro-batch", 3,
            "--base-lr", 0.02, "--checkpoint-every", 5, "--log-every", 1, "--workers", 1,
        ]  # fmt: skip

    whole, run = tmp_path / "whole", tmp_path / "run"
    said = run_to_the_end(words(whole))
    assert said.count("36 steps") == said.count("best top-1 %") == 1
    scores = record(whole, "scores.json")
    assert (scores["val"], scores["unreadable"]) == (15, {"train": 1, "val": 1})
    code, _ = stop_at(words(run), run, 12, lambda own: own.send_signal(signal.SIGTERM))
    assert code == 75
    run_to_the_end(words(run))
    assert outcome(run) == outcome(whole)
    for name in ("unreadable-train.json", "unreadable-val.json"):
        assert record(run, name) == record(whole, name)
    assert [row["loss"] for row in logged(run)] == [row["loss"] for row in logged(whole)]
