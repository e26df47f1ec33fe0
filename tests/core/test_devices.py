"""Devices by name, and memory that is kept."""

import os
import resource
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from milan_pipeline.core.devices import (
    device_of_process,
    keep_freed_memory,
    pick_device,
    pick_devices,
)
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.plan import own_device
from tests.support.processes import CONTEXT, PATIENCE


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="--device 'nonsense' cannot be used"):
        pick_device("nonsense")
    with pytest.raises(ConfigError, match="--device 'meta' cannot be used"):
        pick_device("meta")
    with pytest.raises(ConfigError, match="--device 'cuda:99' cannot be used"):
        pick_device("cuda:99")
    for given, meant in (("7", "cuda:7"), ("GPU", "cuda"), ("CPU", "cpu")):
        with pytest.raises(ConfigError, match=f"--device '{given}' cannot .*; try {meant}$"):
            pick_device(given)


def test_the_remedy_is_not_what_was_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"'cuda' cannot be used.*finds 0 GPUs.*; try cpu$"):
        pick_device("cuda")


def test_float32_is_float32_from_then_on(monkeypatch):
    """As in NVIDIA's containers, which set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE."""
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        pick_device("cpu")
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


IN_A_CONTAINER = """
import torch
from milan_pipeline.core.devices import pick_device

def precisions():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    print(torch.get_float32_matmul_precision(), matmul.allow_tf32, cudnn.allow_tf32)

precisions()
pick_device("cpu")
precisions()
"""


@pytest.mark.slow
def test_a_container_that_allows_tf32_is_overruled():
    """NVIDIA's have this variable, which counts when torch is imported."""
    variables = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    command = [sys.executable, "-c", IN_A_CONTAINER]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["high True True", "highest False False"]


@pytest.mark.parametrize(("value", "refused"), [("1", True), ("", False), ("0", False)])
def test_what_rounds_float32_on_gpus_whatever_is_asked_for_is_refused(monkeypatch, value, refused):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
    expected = pytest.raises(ConfigError, match="set it to 0") if refused else nullcontext()
    with expected:
        pick_device("cuda:0")
    assert pick_device("cpu").type == "cpu"


def test_a_gpu_is_looked_for_without_memory_on_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", None)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="torch finds 2 GPUs"):
        pick_device("cuda:2")


def test_freed_memory_is_kept_and_comes_without_page_faults():
    """In a process of its own, whose memory no other test has cut to pieces."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=send_faults, args=(theirs,))
    process.start()
    assert ours.poll(PATIENCE)
    # Pages are of 4 KiB: eight tensors given back each time cost 32,768 faults. On one machine two
    # of the eight came new, now and then: 8,212.
    assert ours.recv() < 12_288
    process.join()


def send_faults(connection):
    keep_freed_memory()
    torch.ones(4 << 20).add_(1)  # 16 MiB, more than malloc would keep by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(4 << 20).add_(1)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@pytest.fixture
def eight_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize(
    ("variables", "part", "index"),
    [
        ({}, None, None),
        ({}, "5/16", 5),
        ({}, "11/16", 3),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3"}, "9/16", 3),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}, "9/16", 1),
        ({"LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "2"}, None, 2),
        ({"LOCAL_WORLD_SIZE": "many", "LOCAL_RANK": "2"}, None, None),
    ],
)
def test_extractions_that_share_a_machine_take_gpus_in_turn(eight_gpus, variables, part, index):
    for name, value in variables.items():
        eight_gpus(name, value)
    options = {
        "images": "x",
        "out": "y",
        "teacher": "ViT-B-16",
        "pretrained": "openai",
        "part": part,
    }
    assert own_device(ExtractTargets(**options)) == torch.device("cuda", index)
    named = ExtractTargets(**options, device="cuda:6")
    assert own_device(named) == torch.device("cuda", 6)


def test_a_process_that_is_told_its_number_asks_no_launcher(eight_gpus):
    """Dask tells its workers of one machine, whatever Slurm says of the process they are of."""
    eight_gpus("SLURM_STEP_NUM_TASKS", "8")
    eight_gpus("SLURM_LOCALID", "3")
    assert device_of_process("auto", number=5) == torch.device("cuda", 5)
    assert device_of_process("auto") == torch.device("cuda", 3)


def test_all_gpus_are_named_one_by_one(eight_gpus):
    assert pick_devices("all") == [torch.device("cuda", number) for number in range(8)]
    assert pick_devices("cuda:1, cuda:3") == [torch.device("cuda", 1), torch.device("cuda", 3)]
    with pytest.raises(ConfigError, match="torch finds 8 GPUs"):
        pick_devices("cuda:1,cuda:8")
    with pytest.raises(ConfigError, match="--devices 'cuda:8' cannot be used"):
        pick_devices("cuda:8")
    for names in ("cuda:1,", ",cuda:1", "cuda:1,,cuda:2", " "):
        with pytest.raises(ConfigError, match=f"--devices '{names}' has an empty name"):
            pick_devices(names)
    eight_gpus("SLURM_STEP_NUM_TASKS", "8")
    eight_gpus("SLURM_LOCALID", "3")
    with pytest.raises(ConfigError, match="start one, or leave --devices out"):
        pick_devices("all")


def test_without_a_gpu_all_devices_are_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_devices("all") == [torch.device("cpu")]
