"""The run folder: what pretrain writes, goes on with, and refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from milan_pipeline.errors import DataError
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.weights.loaded_run import trained_encoder
from tests.support.cli import run_cli
from tests.support.disturbances import at_step, send_signal
from tests.support.pretrain import SHORT, TINY_STUDENT, log, pretrain, state, weights


def test_run_folder_is_complete(whole):
    description = json.loads((whole / "encoder.json").read_text())
    model = timm.create_model(**description["timm"])
    model.load_state_dict(load_file(whole / "encoder.safetensors"), strict=True)
    assert [row["step"] for row in log(whole)] == list(range(1, 13))
    assert state(whole) == "done"
    record = json.loads((whole / "config.json").read_text())
    assert record["state"] == "done"
    assert record["inputs"]["identity_hash"]
    assert record["content"]["batch_size"] == 8
    assert record["counts"]["steps"] == 12
    assert record["counts"]["missing"] == 0
    assert list((whole / "tensorboard").iterdir())
    assert [path.name for path in (whole / "checkpoints").iterdir()] == ["step-00000012"]


def test_second_run_has_nothing_to_do(whole, shards, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    pretrain(*shards, whole)
    assert "nothing to do, 12 steps are done" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}


def test_a_lost_encoder_is_written_again_while_there_is_a_checkpoint(
    whole, shards, tmp_path, capsys
):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "encoder.safetensors").unlink()
    pretrain(*shards, run)
    assert weights(run) == weights(whole)
    assert log(run) == log(whole)
    (run / "encoder.json").unlink()
    shutil.rmtree(run / "checkpoints")
    pretrain(*shards, run, "--dry-run", code=1)
    assert "has lost encoder.json, and has no checkpoint to write it" in capsys.readouterr().err


def test_a_cache_changes_nothing_but_where_bytes_come_from(whole, shards, tmp_path):
    pretrain(*shards, tmp_path / "run", "--cache", tmp_path / "cache", "--cache-gb", 0.1)
    assert weights(tmp_path / "run") == weights(whole)
    assert list((tmp_path / "cache").glob("*.piece"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cache", "s3://bucket/x"), "--cache s3://bucket/x is no local folder"),
        (("--cache", "x", "--cache-gb", "nan"), "--cache-gb nan is not a usable number"),
        (("--cache", "x", "--cache-gb", "0.001"), "--cache-gb .* less than two pieces"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(shards, tmp_path, options, message, capsys):
    pretrain(*shards, tmp_path / "run", *options, code=2)
    assert re.search(message, capsys.readouterr().err)


def test_a_moving_average_is_exported_beside_the_encoder(shards, tmp_path):
    pretrain(*shards, tmp_path, "--max-steps", 6, "--ema-decay", 0.5, "--clip-grad", 0.01)
    description = json.loads((tmp_path / "encoder-ema.json").read_text())
    model = timm.create_model(**description["timm"])
    averages = load_file(tmp_path / "encoder-ema.safetensors")
    model.load_state_dict(averages, strict=True)
    last = load_file(tmp_path / "encoder.safetensors")
    assert averages.keys() == last.keys()
    assert any(not torch.equal(value, last[name]) for name, value in averages.items())
    assert all(row["grad_norm"] > 0 for row in log(tmp_path))


def test_the_encoder_of_an_earlier_step_is_not_taken_for_that_of_the_last(shards, tmp_path):
    """Its checkpoint is damaged before the encoder is exported from it."""
    pretrain(*shards, tmp_path, "--checkpoint-every", 6)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    spoilt = tmp_path / "checkpoints/step-00000012/student.safetensors"
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    arguments = json.loads((tmp_path / "encoder.json").read_text())["timm"]
    with pytest.raises(DataError, match=r"step-00000012.*damaged"):
        trained_encoder(tmp_path, arguments)


# ---- stop, go on, extend


def test_a_stop_signal_exits_with_75_and_a_rerun_ends_the_same(whole, shards, tmp_path, capsys):
    with at_step(5, lambda: send_signal("SIGUSR1")):
        pretrain(*shards, tmp_path, code=75)
    error = capsys.readouterr().err
    assert "\nInterrupted: SIGUSR1 received; " in error
    assert "step 5" in error
    assert state(tmp_path) == "interrupted"
    assert not (tmp_path / "encoder.safetensors").exists()
    pretrain(*shards, tmp_path)
    assert state(tmp_path) == "done"
    assert weights(tmp_path) == weights(whole)
    assert [row["loss"] for row in log(tmp_path)] == [row["loss"] for row in log(whole)]


def test_more_steps_extend_a_run_that_is_done(whole, shards, tmp_path, capsys):
    pretrain(*shards, tmp_path, "--max-steps", 5)
    said = capsys.readouterr().out
    assert re.search(r"5 steps, 5 of them now; .* images/s; \d+\.\d% of the time waiting", said)
    assert state(tmp_path) == "done"
    assert weights(tmp_path) != weights(whole)
    pretrain(*shards, tmp_path, "--max-steps", 3)
    assert "nothing to do" in capsys.readouterr().out
    pretrain(*shards, tmp_path, "--dry-run")
    assert "steps to do: 7 of 12" in capsys.readouterr().out
    assert len(log(tmp_path)) == 5
    pretrain(*shards, tmp_path)
    assert weights(tmp_path) == weights(whole)
    assert len(log(tmp_path)) == 12


def test_options_that_are_free_may_change_between_the_parts_of_a_run(whole, shards, tmp_path):
    pretrain(*shards, tmp_path, "--max-steps", 5)
    free = ("--workers", 2, "--checkpoint-every", 3, "--keep", 1, "--log-every", 1)
    pretrain(*shards, tmp_path, *free)
    assert weights(tmp_path) == weights(whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("--base-lr 0.001", "options.base_lr is 0.00015 there and 0.001 here"),
        ("--seed 1", "options.seed is 0 there and 1 here"),
        ("--epochs 5", ", a run of 4 epochs, over which its learning rate falls; for more, give "),
        ("--epochs 1", "--epochs 1 does not fit"),
        ("--depth 3", "options.depth is 2 there and 3 here"),
        ("--views 1", "options.views is 2 there and 1 here"),
    ],
)
def test_other_content_options_are_refused_by_name(change, named, whole, shards, capsys):
    before = weights(whole)
    for more in ((), ("--dry-run",)):
        pretrain(*shards, whole, *change.split(), *more, code=1)
        assert named in capsys.readouterr().err
    assert weights(whole) == before
    assert state(whole) == "done"


def test_options_that_cannot_work_leave_no_run_behind(shards, tmp_path):
    pretrain(*shards, tmp_path / "run", "--heads", 5, code=2)
    pretrain(*shards, tmp_path / "run", "--mask-ratio", 0.999, code=2)
    pretrain(*shards, tmp_path / "run", "--max-steps", 1)


# ---- values that cannot work


def test_a_batch_larger_than_the_data_is_a_clear_error(shards, tmp_path, capsys):
    pretrain(*shards, tmp_path / "run", "--batch-size", 32, code=2)
    error = capsys.readouterr().err
    assert "--batch-size 32 is more than the 24 samples to train on; give at most 24" in error
    assert not (tmp_path / "run").exists()


def test_images_of_which_none_has_a_target_are_refused(shards, tmp_path, capsys):
    images = str(tmp_path / "images")
    other = write_shard(images, "other.tar", [Sample("a", {"jpg": b"a picture"})])
    Manifest(kind="images", folder=images, shards=(other,)).save()
    pretrain(Path(images), shards[1], tmp_path / "run", "--on-missing", "skip", code=1)
    error = capsys.readouterr().err
    assert f"no image of {images} has a target in {shards[1]}" in error
    assert "give the targets of these images" in error
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_the_damaged_file_of_its_state(shards, tmp_path, capsys):
    pretrain(*shards, tmp_path, "--max-steps", 1)
    (tmp_path / "state.json").write_bytes(b"")
    pretrain(*shards, tmp_path, code=1)
    assert "state.json is damaged" in (error := capsys.readouterr().err)
    assert "; delete it and run the command that trained there again" in error
    (tmp_path / "state.json").unlink()
    pretrain(*shards, tmp_path, "--max-steps", 2)
    assert [row["step"] for row in log(tmp_path)] == [1, 2]


def test_bfloat16_trains_and_exports_float32(shards, tmp_path):
    pretrain(*shards, tmp_path, "--precision", "bf16", "--max-steps", 2)
    exported = load_file(tmp_path / "encoder.safetensors")
    assert {value.dtype for value in exported.values()} == {torch.float32}
    assert json.loads((tmp_path / "config.json").read_text())["content"]["precision"] == "bf16"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--clip-grad", 0.0), ("--ema-decay", 1.0), ("--processes", 0),
        ("--mask-ratio", 1.5), ("--workers", -1), ("--batch-size", 0), ("--base-lr", -1),
        ("--warmup-epochs", 4), ("--out", "memory://run"), ("--student", "vit_bse"),
        ("--student", "vit_tiny_patch16_224.augreg_in21k"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_wrong_usage(option, value, shards, tmp_path, capsys):
    pretrain(*shards, tmp_path / "run", option, value, code=2)
    error = capsys.readouterr().err
    assert option in error
    assert str(value) in error
    assert len(error.splitlines()) == 1


# ---- dry run


def test_dry_run_says_what_would_be_done_and_writes_nothing(shards, tmp_path, capsys):
    pretrain(*shards, tmp_path / "run", "--dry-run")
    said, warned = capsys.readouterr()
    assert "--epochs 4 with --batch-size 8 make 12 steps, and in fewer than 200" in warned
    assert "steps to do: 12 of 12" in said
    assert "pairs: 24 a view, views: 2, left out: 0" in said
    assert "batch: 8 images, 1 from each of 8 lanes" in said
    assert "images that an epoch leaves out: 0" in said
    assert "bytes to write: about" in said
    assert " of encoder; free: " in said
    pretrain(*shards, tmp_path / "run", "--batch-size", 7, "--epochs", 67, "--dry-run")
    said, warned = capsys.readouterr()
    assert "steps to do: 201 of 201" in said
    assert "images that an epoch leaves out: 3" in said
    assert "in fewer than 200" not in warned
    assert not (tmp_path / "run").exists()


def test_fsdp_without_processes_is_refused_by_run_and_dry_run_alike(shards, tmp_path, capsys):
    for more in ((), ("--dry-run",)):
        pretrain(*shards, tmp_path / "run", "--fsdp", *more, code=2)
        assert "--fsdp shards over processes, and there is one" in capsys.readouterr().err
    pretrain(*shards, tmp_path / "run", "--fsdp", "--processes", 2, "--dry-run")


def test_processes_under_torchrun_are_refused(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    for more in ((), ("--dry-run",)):
        pretrain(*shards, tmp_path / "run", "--processes", 2, *more, code=2)
        assert "this is one of 3 processes; leave it out" in capsys.readouterr().err
    pretrain(*shards, tmp_path / "run", "--dry-run", code=2)
    assert "--lanes 8 cannot be shared by 3 processes" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--ema-decay", 0.5)])
def test_dry_run_says_about_how_much_is_written(more, shards, tmp_path, capsys):
    pretrain(*shards, tmp_path, "--max-steps", 1, "--keep", 1, *more, "--dry-run")
    said = re.search(r"about (\d+) .* of checkpoints and (\d+) .* of enc", capsys.readouterr().out)
    assert said is not None
    pretrain(*shards, tmp_path, "--max-steps", 1, "--keep", 1, *more)
    checkpoint = sum(path.stat().st_size for path in tmp_path.glob("checkpoints/*/*.safetensors"))
    exported = sum(path.stat().st_size for path in tmp_path.glob("encoder*.safetensors"))
    # What is fixed has no moments, and files have headers.
    assert 0.9 < int(said[1]) / (2 * checkpoint) < 1.1
    assert 0.85 < int(said[2]) / exported < 1


def test_a_cache_smaller_than_the_shuffle_is_warned_of_once(tmp_path, capsys):
    """10 images of 3 MB, and a cache of three pieces, of 8 MiB each."""
    for number in range(10):
        noise = np.random.Generator(np.random.PCG64(number)).bytes(3000 * 1000)
        picture = Image.frombytes("RGB", (1000, 1000), noise)
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / f"in/{number}.png", compress_level=0)
    run_cli("pack-images", tmp_path / "in", tmp_path / "shards")
    run_cli(
        "pretrain", "--target", "pixels", "--images", tmp_path / "shards", "--out",
        tmp_path / "run", *TINY_STUDENT, "--image-size", 32, *SHORT, "--cache", tmp_path / "cache",
        "--cache-gb", 0.026, "--max-steps", 1,
    )  # fmt: skip
    warnings = [line for line in capsys.readouterr().err.splitlines() if "--cache-gb" in line]
    assert len(warnings) == 1
    assert "Warning: --cache-gb 0.026 is less than the" in warnings[0]
    assert "(8 lanes of --shuffle-block 4096)" in warnings[0]
