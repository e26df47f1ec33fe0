"""Several processes train one student: the same batches, the same losses, the same end."""

import functools
import json
import socket
import unittest.mock
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from milan_pipeline.cluster.launch import is_launched
from milan_pipeline.cluster.world import World, joined_world, local_device
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.errors import ConfigError, DataError, StorageError
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.shared.labelled_tables import open_tables
from milan_pipeline.training.checkpoints import AVERAGE, MODEL, OPTIMISER, newest_checkpoint
from tests.support.cli import extract_targets, run_cli
from tests.support.clip import write_tiny_clip
from tests.support.processes import run_world
from tests.support.runs import STEPS as STEPS_OF_A_SMALL_RUN
from tests.support.runs import Run, open_data, spoiled_codes, train

STEPS = 12
LONG = {"total_steps": STEPS, "epochs": 8}


@pytest.fixture(scope="module")
def shards(image_shards, target_shards):
    """The folders of images and targets."""
    return image_shards, target_shards


@pytest.fixture(scope="module")
def runs(shards, tmp_path_factory):
    """Run folders by name: the same 12 steps by one, two and four processes, and by shards."""
    root = tmp_path_factory.mktemp("worlds")
    keys = {}
    for name, size, changes in (
        ("one", 1, {}),
        ("two", 2, {"micro_batch": 3}),
        ("four", 4, {}),
        ("sharded", 2, {"fsdp": True}),
    ):
        keys[name] = returned(run_world(size, train, shards, root / name, [LONG | changes]))
    return root, keys


def returned(results):
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def logged(run, field="loss"):
    return [json.loads(line)[field] for line in (run / "log.jsonl").read_text().splitlines()]


def saved(run, file=MODEL):
    newest = newest_checkpoint(run)
    assert newest is not None
    return newest[0], load_file(newest[1] / file)


@pytest.mark.parametrize("name", ["two", "four", "sharded"])
def test_more_processes_see_the_same_batches_and_learn_the_same(runs, name):
    root, keys = runs
    joined = {step: [k for part in keys[name] for k in part[step]] for step in keys[name][0]}
    assert joined == keys["one"][0]
    assert len(joined) == STEPS
    assert logged(root / name) == pytest.approx(logged(root / "one"), rel=1e-5)
    (step, ours), (_, theirs) = saved(root / name), saved(root / "one")
    assert step == STEPS
    assert ours.keys() == theirs.keys()
    for tensor, value in without_key_biases(ours).items():
        norm = float(without_key_biases(theirs)[tensor].norm())
        assert float(value.norm()) == pytest.approx(norm, rel=1e-4), tensor


@pytest.mark.slow
def test_shards_and_copies_agree_in_bfloat16(shards, tmp_path):
    for name, fsdp in (("copied", False), ("sharded", True)):
        returned(run_world(2, train, shards, tmp_path / name, [{"bf16": True, "fsdp": fsdp}]))
    assert logged(tmp_path / "sharded") == pytest.approx(logged(tmp_path / "copied"), rel=1e-5)


def without_key_biases(tensors):
    """Leave out what has no true gradient, so that all of it is rounding."""
    kept = dict(tensors)
    for name, value in tensors.items():
        if name.endswith("attn.qkv.bias"):
            query, _, values = value.chunk(3)
            kept[name] = torch.cat([query, values])
        if name.endswith("attn.kv.bias"):
            kept[name] = value.chunk(2)[1]
    return kept


# ---- resume


@pytest.mark.parametrize(
    ("size", "changes"),
    [(2, {}), pytest.param(4, {}, marks=pytest.mark.slow), (2, {"fsdp": True})],
)
def test_a_kill_and_a_stop_change_no_bit(size, changes, shards, tmp_path):
    parts = [{"break_at": 4}, {"stop_at": (5, size - 1)}, {"break_at": 8}, {}]
    parts = [part | changes | {"ema_decay": 0.9, "clip_grad": 0.5} for part in parts]
    returned(run_world(size, train, shards, tmp_path / "broken", parts))
    returned(run_world(size, train, shards, tmp_path / "whole", parts[-1:]))
    assert logged(tmp_path / "broken") == logged(tmp_path / "whole")
    for file in (MODEL, OPTIMISER, AVERAGE):
        (step, ours), (_, theirs) = (saved(tmp_path / run, file) for run in ("broken", "whole"))
        assert step == STEPS_OF_A_SMALL_RUN
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_goes_on_with_other_numbers_of_processes_and_with_shards(runs, shards, tmp_path):
    root, _ = runs
    for size, steps, fsdp in ((2, 4, True), (1, 7, False), (4, STEPS, False)):
        part = LONG | {"total_steps": steps, "fsdp": fsdp}
        returned(run_world(size, train, shards, tmp_path, [part]))
    assert logged(tmp_path) == pytest.approx(logged(root / "one"), rel=1e-5)


# ---- what goes wrong in one process


def spoil_one(world, shards, folder):
    """Train on targets that are not numbers in the last process alone; return error and keys."""
    run = Run(open_data(*shards), folder, world)
    keys = []

    def spoiled(step, batch):
        if step != 4:
            return batch
        keys.extend(batch.keys)
        return spoiled_codes(batch) if world.rank == world.size - 1 else batch

    with pytest.raises(DataError) as error:
        run.train(change=spoiled)
    return str(error.value), keys


@pytest.fixture
def two_teachers(image_shards, target_store, tmp_path):
    """The folders of images, and of the targets of two teachers, each with its PHI-S."""
    clip, other = write_tiny_clip(tmp_path / "clip", seed=1), tmp_path / "other.zarr"
    extract_targets(image_shards, clip, other, "--views-from", target_store)
    folders = []
    for store, codec in ((target_store, "float16"), (other, "int8")):
        folders.append(tmp_path / codec)
        run_cli("pack-targets", "--targets", store, "--out", folders[-1], "--codec", codec,
                "--phi-s")  # fmt: skip
    return image_shards, *folders


@pytest.mark.slow
def test_two_teachers_by_phi_s_are_learnt_alike_by_any_number_of_processes(two_teachers, tmp_path):
    learnt: dict[str, Any] = LONG | {"loss": "mse", "target_norm": "phi-s"}
    run = functools.partial(train, phi_s=True)
    returned(run_world(1, run, two_teachers, tmp_path / "whole", [learnt]))
    for size, steps, parts in (
        (2, 4, [{"fsdp": True}]),
        (1, 7, [{"break_at": 6}, {}]),
        (4, STEPS, [{}]),
    ):
        changed = [learnt | {"total_steps": steps} | part for part in parts]
        returned(run_world(size, run, two_teachers, tmp_path / "parts", changed))
    for field in ("loss", "loss/0", "loss/1"):
        ours, theirs = (logged(tmp_path / name, field) for name in ("parts", "whole"))
        assert len(ours) == STEPS
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_loss_that_is_not_finite_in_one_process_stops_all(shards, tmp_path):
    messages = returned(run_world(2, spoil_one, shards, tmp_path))
    (first, good_keys), (second, bad_keys) = messages
    assert first == second
    assert "loss of step 4 is nan" in first
    assert "step-00000002" in first
    assert all(key in first for key in bad_keys)
    assert not any(f"{key}," in first for key in good_keys)
    assert logged(tmp_path, "step") == [1, 2, 3]
    assert saved(tmp_path)[0] == 2


def break_one(world, shards, folder):
    """Break in the last process alone."""
    run = Run(open_data(*shards), folder, world)

    def broken(step, batch):
        if (step, world.rank) == (4, world.size - 1):
            raise ZeroDivisionError
        return batch

    run.train(change=broken)


def test_the_end_of_one_process_ends_all(shards, tmp_path):
    first, second = run_world(2, break_one, shards, tmp_path)
    assert isinstance(second, ZeroDivisionError)
    assert isinstance(first, StorageError)
    assert "another process" in str(first)


def open_some(world, folder):
    """Return what a process has of the tables, and which places it opened itself."""
    looked_at = []

    def noting(place, **how):
        looked_at.append(place)
        return open_labelled(place, **how)

    place = str(folder)
    config = Finetune(
        encoder="timm:test_vit", train=place, val=place, out=f"{place}-run", label_fraction=0.5
    )
    with unittest.mock.patch("milan_pipeline.stages.shared.labelled_tables.open_labelled", noting):
        train, val = open_tables(config, kind="class", world=world)
    seen = [[*table.names(), *map(str, table.parts[0].labels)] for table in (train, val)]
    return looked_at, seen, len(next(val.read(val.places()))["image"])


def test_one_process_lists_the_labelled_images_for_all(pictures):
    (first, *ours), (second, *theirs) = returned(run_world(2, open_some, pictures))
    assert (first, second) == ([str(pictures)] * 2, [])
    assert ours == theirs
    assert [len(names) for names in ours[0]] == [24, 48]  # each image and its label


# ---- one process


def test_alone_every_agreement_is_with_oneself():
    world = World()
    assert world.leads
    assert world.most(3) == 3
    assert world.gather("own") == ["own"]
    assert world.of_first(lambda: "own") == "own"
    world.wait_for_all()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert is_launched()
    assert local_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"process 2 .* has 2; give torchrun --nproc-per-node 2"):
        local_device(torch.device("cuda"))


@pytest.mark.parametrize(("variables", "fits"), [({}, True), ({"TORCHELASTIC_RUN_ID": "x"}, False)])
def test_the_one_gpu_that_a_scheduler_shows_is_this_process_s(monkeypatch, variables, fits):
    """torchrun shows all its processes the same GPUs."""
    given = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "1"}
    for name, value in (given | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.set_device", lambda _: None)
    if fits:
        assert local_device(torch.device("cuda")) == torch.device("cuda", 0)
        return
    with pytest.raises(ConfigError, match="process 1 of this machine has no GPU"):
        local_device(torch.device("cuda"))


def test_what_names_no_gpu_takes_the_one_that_was_named(monkeypatch):
    """Else page-locking memory, say, would begin on the first GPU of the machine."""
    taken: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    assert local_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert taken == [torch.device("cuda", 1)]


def test_a_port_in_use_is_named(monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in (given | {"MASTER_PORT": str(port)}).items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(ConfigError, match=f"MASTER_PORT {port} is in use on this machine"),
            joined_world(torch.device("cpu")),
        ):
            pass
