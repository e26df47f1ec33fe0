"""`pretrain --init`: a run begins from another's weights. A rate of 0 leaves them as they were."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.training.checkpoints import MODEL
from tests.support.cli import run_cli
from tests.support.pretrain import SHORT, TINY_STUDENT, pretrain
from tests.support.second_teacher import write_second_teacher
from tests.support.students import import_checkpoint

FROZEN = ("--base-lr", 0, "--max-steps", 1)


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    pretrain(*shards, run, "--seed", 5, "--base-lr", 0.1, "--max-steps", 2)
    return run


def weights(run):
    return load_file(max((run / "checkpoints").iterdir()) / MODEL)


def same(left, right, part=""):
    names = [name for name in left if name.startswith(part)]
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in names)


def test_a_run_begins_from_the_newest_weights_of_another(trained, shards, tmp_path):
    pretrain(*shards, tmp_path / "run", "--init", trained, *FROZEN)
    assert same(weights(tmp_path / "run"), weights(trained))
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(record["inputs"]["init"]) == 64


def test_a_run_begins_from_an_imported_checkpoint(trained, shards, tmp_path):
    run_cli("export", trained, "--form", "official", "--out", tmp_path / "official")
    heads = ("--heads", 2, "--decoder-heads", 2)
    imported = import_checkpoint(
        tmp_path / "official" / "checkpoint.pth", tmp_path / "imported", *heads
    )
    pretrain(*shards, tmp_path / "run", "--init", imported, *FROZEN)
    assert same(weights(tmp_path / "run"), weights(trained))


@pytest.mark.parametrize("given", ["", "encoder.safetensors"])
def test_an_encoder_alone_leaves_the_decoder_to_the_seed(given, trained, shards, tmp_path):
    alone = shutil.copytree(trained, tmp_path / "alone")
    if not given:
        shutil.rmtree(alone / "checkpoints")
    pretrain(*shards, tmp_path / "run", "--init", alone / given, *FROZEN)
    pretrain(*shards, tmp_path / "random", *FROZEN)
    found, drawn = weights(tmp_path / "run"), weights(tmp_path / "random")
    assert same(found, weights(trained), part="encoder.")
    assert same(found, drawn, part="decoder.")
    assert not same(found, drawn, part="encoder.")


def test_a_resume_from_other_weights_is_refused(trained, shards, tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    pretrain(*shards, run, "--init", trained, *FROZEN)
    pretrain(*shards, other, *FROZEN)
    pretrain(*shards, run, "--init", other, "--base-lr", 0, "--max-steps", 2, code=1)
    assert "inputs.init is '" in capsys.readouterr().err
    moved = shutil.copytree(trained, tmp_path / "moved")
    pretrain(*shards, run, "--init", moved, "--base-lr", 0, "--max-steps", 2)
    assert same(weights(run), weights(trained))


def test_a_resume_knows_what_the_run_began_from(trained, shards, tmp_path):
    begun, run = shutil.copytree(trained, tmp_path / "begun"), tmp_path / "run"
    pretrain(*shards, run, "--init", begun, *FROZEN)
    shutil.rmtree(begun)
    pretrain(*shards, run, "--base-lr", 0, "--max-steps", 2)
    assert same(weights(run), weights(trained))
    record = json.loads((run / "config.json").read_text())
    assert record["config"]["init"] == str(begun)
    assert len(record["inputs"]["init"]) == 64


def test_a_run_without_a_checkpoint_begins_from_the_same_again(trained, shards, tmp_path):
    run = tmp_path / "run"
    pretrain(*shards, run, "--init", trained, *FROZEN)
    record = json.loads((run / "config.json").read_text())
    shutil.rmtree(run / "checkpoints")
    (run / "config.json").write_bytes(record_bytes(record | {"state": "running"}))
    (run / "state.json").unlink()
    pretrain(*shards, run, *FROZEN)
    assert same(weights(run), weights(trained))


def test_heads_are_those_of_the_same_teachers(shards, tmp_path, capsys):
    images, wide = shards
    narrow = write_second_teacher(Path(wide), tmp_path / "second")

    def begin(out, names, *more, code=0):
        a, b = names
        options = ("--targets", f"{b}={narrow}", *TINY_STUDENT, *SHORT, *FROZEN, *more)
        run_cli(
            "pretrain",
            "--images",
            images,
            "--targets",
            f"{a}={wide}",
            "--out",
            tmp_path / out,
            *options,
            code=code,
        )
        return capsys.readouterr().err

    begin("first", "ab")
    init = ("--init", tmp_path / "first")
    begin("again", "ab", *init)
    assert same(weights(tmp_path / "again"), weights(tmp_path / "first"))
    error = begin("renamed", "xy", *init, code=1)
    assert "learnt from the teachers a and b, and this run from x and y, so that heads" in error
    assert "knows the teacher a of this run by another name" in begin("moved", "ba", *init, code=1)
    remedy = f"--init {tmp_path / 'first'}/encoder.safetensors"
    assert f"or {remedy} to begin from its encoder alone" in error
    begin("renamed", "xy", *remedy.split())
    found, first = weights(tmp_path / "renamed"), weights(tmp_path / "first")
    assert same(found, first, part="encoder.")


@pytest.fixture
def refused_init(trained, shards, tmp_path):
    """Begin another student from the trained run, in vain; return both folders."""

    def attempt(*change):
        pretrain(*shards, tmp_path / "run", "--init", trained, *change, code=1)
        return trained, tmp_path / "run"

    return attempt


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            ("--depth", 3),
            "encoder.blocks.2.attn.proj.bias is missing there and of shape (32,) here",
        ),
        (
            ("--width", 64),
            "decoder.embed.weight is of shape (32, 32) there and of shape (32, 64) here",
        ),
        (("--heads", 4), "--heads is 2 there and 4 here"),
        (("--decoder-heads", 4), "--decoder-heads is 2 there and 4 here"),
        (("--decoder-depth", 2), "decoder.blocks.1.attn.kv.bias is missing there"),
    ],
)
def test_weights_of_another_student_are_refused_by_parameter(change, named, refused_init, capsys):
    trained, run = refused_init(*change)
    error = capsys.readouterr().err
    assert f"--init {trained} does not fit the student: " in error
    assert named in error
    assert not run.exists()


def test_a_run_of_narrower_targets_is_told_what_helps(trained, shards, tmp_path, capsys):
    images, targets = shards
    other = write_second_teacher(Path(targets), tmp_path / "second")
    pretrain(images, other, tmp_path / "run", "--init", trained, *FROZEN, code=1)
    error = capsys.readouterr().err
    assert "decoder.pred.bias is of shape (24,) there and of shape (8,) here" in error
    assert "give targets as wide as those of that run's teachers together" in error


def test_an_unfinished_run_or_none_is_refused(trained, shards, tmp_path, capsys):
    unfinished = shutil.copytree(trained, tmp_path / "unfinished")
    (unfinished / "state.json").write_text('{"state": "interrupted", "step": 1}')
    pretrain(*shards, tmp_path / "run", "--init", unfinished, code=1)
    assert "is 'interrupted'; finish it" in capsys.readouterr().err
    pretrain(*shards, tmp_path / "run", "--init", tmp_path / "nowhere", "--dry-run", code=1)
    assert "nowhere holds no run" in capsys.readouterr().err


def test_checkpoints_without_a_record_are_not_gone_on_from(trained, shards, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "config.json").unlink()
    for more in ((), ("--dry-run",)):
        pretrain(*shards, run, *more, code=1)
        assert "has checkpoints but no config.json; give another --out" in capsys.readouterr().err
    assert same(weights(run), weights(trained))
    (run / "config.json").write_text("torn")
    pretrain(*shards, run, code=1)
    assert "is damaged" in (said := capsys.readouterr().err)
    assert "restore it or give another output folder" in said


def test_heads_that_a_linear_decoder_does_not_have_may_differ(shards, tmp_path):
    linear = ("--decoder", "linear", *FROZEN)
    pretrain(*shards, tmp_path / "first", *linear)
    pretrain(*shards, tmp_path / "run", *linear, "--init", tmp_path / "first", "--decoder-heads", 4)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "first"))
