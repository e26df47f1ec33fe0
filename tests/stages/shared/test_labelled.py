"""`finetune` and `segment` alike: a run stops and goes on, is scored, and refuses what differs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from tests.support import finetune, segment
from tests.support.cli import run_cli
from tests.support.disturbances import at_step, send_signal
from tests.support.finetune import record, rows
from tests.support.labelled import write_coloured
from tests.support.pictures import write_ade_tree

STEPS = 9
CHANGES = {
    "finetune": {
        "--base-lr 0.001": "options.base_lr is 0.02 there and 0.001 here",
        "--seed 1": "options.seed is 0 there and 1 here",
        "--label-fraction 0.5": "options.label_fraction is 1.0 there and 0.5 here",
        "--pool cls": "options.pool is 'mean' there and 'cls' here",
        "--eval-every 2": "options.eval_every is 1 there and 2 here",
    },
    "segment": {
        "--base-lr 0.001": "options.base_lr is 0.01 there and 0.001 here",
        "--head linear": "options.head is 'upernet' there and 'linear' here",
        "--classes 4": "options.classes is 3 there and 4 here",
        "--stride 8": "options.stride is 16 there and 8 here",
    },
}
OUT_OF_RANGE: dict[str, list[tuple[str, object]]] = {
    "finetune": [
        ("--label-fraction", 0.0), ("--label-fraction", 1.5), ("--crop-pct", 0.0),
        ("--drop-path", 1.0), ("--smoothing", 1.0), ("--layer-decay", 1.5), ("--erasing", 2.0),
        ("--warmup-epochs", 3.0), ("--eval-every", 0), ("--batch-size", 13),
        ("--out", "memory://run"), ("--encoder", "no-such-vit"), ("--encoder", "pixels"),
        ("--layer-decay", 0.0),
    ],
    "segment": [
        ("--label-fraction", 0.0), ("--least-scale", 3.0), ("--max-class-share", 0.0),
        ("--drop-path", 1.0), ("--stride", 33), ("--epochs", 3), ("--warmup-steps", 9),
        ("--classes", 256), ("--micro-batch", 1), ("--batch-size", 13), ("--eval-every", 0),
        ("--ignore-index", 256), ("--encoder", "no-such-vit"),
    ],
}  # fmt: skip


class Command(NamedTuple):
    """A command that learns from twelve images, and what an undisturbed run of it left."""

    name: str
    train: Callable[..., None]
    outcome: Callable[[Path], dict[str, bytes]]
    last: str  # the name of what is trained last
    score: str
    data: tuple[Path, Path]
    scored: int
    whole: Path
    always: tuple[str, ...] = ()  # words that scoring alone needs, too

    def evaluate(self, encoder: Path, val: Path, out: Path, *more: object, code: int = 0) -> Any:
        """Score without training; return the metrics."""
        words = ("--eval-only", "--encoder", encoder, "--val", val, "--out", out, "--workers", 0)
        run_cli(self.name, *words, *self.always, *more, code=code)
        return record(out, "scores.json")["metrics"] if (out / "scores.json").exists() else None

    def packed(self, place: Path, out: Path) -> Path:
        """Pack a folder of images with their labels."""
        masks = place.parent.parent / "annotations" / place.name
        more = ("--masks", masks) if self.name == "segment" else ()
        run_cli("pack-images", place, out, "--samples-per-shard", 5, *more)
        return out


# What both do by the same code takes long with `segment`, and is a slow test of that.
MOSTLY_FINETUNE = pytest.mark.parametrize(
    "command", ["finetune", pytest.param("segment", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture(scope="module", params=["finetune", "segment"])
def command(request, tmp_path_factory) -> Command:
    root = tmp_path_factory.mktemp(request.param)
    whole = root / "run"
    if request.param == "finetune":
        train = write_coloured(root / "train", 4)
        data = train, write_coloured(root / "val", 3, seed=1, noise=120)
        run, outcome = finetune.finetune, finetune.outcome
        found = Command("finetune", run, outcome, "finetuned", "top1", data, 9, whole)
    else:
        images = write_ade_tree(root, {"training": 12, "validation": 5}, first=1) / "images"
        data, always = (images / "training", images / "validation"), ("--reduce-zero-label",)
        run, outcome = segment.segment, segment.outcome
        found = Command("segment", run, outcome, "segmenter", "miou", data, 5, whole, always)
    found.train(*data, whole)
    return found


@MOSTLY_FINETUNE
def test_lost_scores_are_written_again(command: Command, tmp_path):
    run = shutil.copytree(command.whole, tmp_path / "run")
    metrics = record(run, "scores.json")["metrics"]
    for lose in (Path.unlink, lambda path: path.write_text("{")):
        lose(run / "scores.json")
        command.train(*command.data, run)
        assert record(run, "scores.json")["metrics"] == metrics


def test_a_second_run_has_nothing_to_do(command: Command, capsys):
    files = [path for path in command.whole.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    command.train(*command.data, command.whole, "--json")
    said = capsys.readouterr()
    assert f"nothing to do, {STEPS} steps are done" in said.err
    assert json.loads(said.out)["metrics"] == record(command.whole, "scores.json")["metrics"]
    assert before == {path: path.stat().st_mtime_ns for path in files}


@MOSTLY_FINETUNE
def test_a_moving_average_is_what_is_scored_and_kept(command: Command, tmp_path):
    command.train(*command.data, tmp_path, "--ema-decay", 0.5, "--clip-grad", 1, "--max-steps", 3)
    newest = tmp_path / "checkpoints/step-00000003"
    average, last = (load_file(newest / f"{n}.safetensors") for n in ("ema", "student"))
    kept = tmp_path / f"{command.last}.safetensors"
    weights = load_file(kept)
    assert all(torch.equal(weights[name], value) for name, value in average.items())
    assert any(not torch.equal(weights[name], value) for name, value in last.items())
    alone = command.evaluate(kept, command.data[1], tmp_path / "scored")
    assert alone[command.score] == rows(tmp_path, "evaluations.jsonl")[-1][command.score]


# ---- stop, crash, extend


@MOSTLY_FINETUNE
def test_a_stop_exits_with_75_and_a_rerun_ends_the_same(command: Command, tmp_path, capsys):
    with at_step(5, lambda: send_signal("SIGUSR1")):
        command.train(*command.data, tmp_path, code=75)
    assert "Interrupted: SIGUSR1 received; " in capsys.readouterr().err
    assert record(tmp_path, "state.json") | {"time": 0} == {
        "state": "interrupted", "step": 5, "total_steps": 9, "time": 0,
    }  # fmt: skip
    assert not (tmp_path / f"{command.last}.safetensors").exists()
    command.train(*command.data, tmp_path)
    assert command.outcome(tmp_path) == command.outcome(command.whole)


@MOSTLY_FINETUNE
def test_a_crash_after_an_evaluation_repeats_it_and_ends_the_same(command: Command, tmp_path):
    with at_step(8, lambda: 1 / 0):
        command.train(*command.data, tmp_path, "--checkpoint-every", 4, code=1)
    # Step 4 was due, and steps 3 and 6 were written before they were scored; two are kept.
    checkpoints = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert checkpoints == ["step-00000004", "step-00000006"]
    shutil.rmtree(tmp_path / "checkpoints/step-00000006")
    assert len(rows(tmp_path, "evaluations.jsonl")) == 2
    command.train(*command.data, tmp_path, "--checkpoint-every", 4)
    assert command.outcome(tmp_path) == command.outcome(command.whole)
    assert [row["step"] for row in rows(tmp_path, "log.jsonl")] == list(range(1, STEPS + 1))


@MOSTLY_FINETUNE
def test_more_steps_extend_a_run_and_free_options_may_change(command: Command, tmp_path):
    command.train(*command.data, tmp_path, "--max-steps", 6)
    command.train(*command.data, tmp_path, "--workers", 2, "--keep", 1, "--label", "x")
    assert command.outcome(tmp_path) == command.outcome(command.whole)


def test_other_options_and_images_are_refused_by_name(command: Command, capsys):
    before, (train, val) = command.outcome(command.whole), command.data
    command.train(val, val, command.whole, code=1)
    assert "inputs.train" in capsys.readouterr().err
    for change, named in CHANGES[command.name].items():
        command.train(train, val, command.whole, *change.split(), code=1)
        assert named in capsys.readouterr().err
    assert command.outcome(command.whole) == before


def test_scores_of_another_stage_are_not_replaced(command: Command, tmp_path, capsys):
    theirs = record(command.whole, "scores.json") | {"stage": "probe"}
    (tmp_path / "scores.json").write_text(json.dumps(theirs))
    command.train(*command.data, tmp_path, code=1)
    assert "holds the scores.json of `probe`" in capsys.readouterr().err
    command.evaluate(command.whole / "best.safetensors", command.data[1], tmp_path, code=1)
    assert "holds the scores.json of `probe`" in capsys.readouterr().err
    assert record(tmp_path, "scores.json") == theirs


# ---- data


def test_shards_are_scored_as_folders_are(command: Command, tmp_path):
    whole = record(command.whole, "scores.json")["metrics"]
    val, last = command.data[1], command.whole / f"{command.last}.safetensors"
    shards = [command.packed(place, tmp_path / place.name) for place in command.data]
    command.train(*shards, tmp_path / "run", "--max-steps", 1)
    assert record(tmp_path / "run", "scores.json")["train"] == 12
    for place in (val, shards[1]):
        found = command.evaluate(last, place, tmp_path / f"scored-{place.parent.name}")
        assert found == {name: whole[name] for name in found}


def test_a_share_of_the_labels_is_taken(command: Command, tmp_path):
    more = ("--label-fraction", 0.5, "--max-steps", 1, "--batch-size", 2)
    command.train(*command.data, tmp_path, *more)
    assert record(tmp_path, "scores.json")["train"] == 6


# ---- scoring alone


def test_scoring_alone_says_what_the_run_said(command: Command, tmp_path, capsys):
    words = (command.whole / "best.safetensors", command.data[1], tmp_path)
    command.evaluate(*words, "--dry-run")
    assert capsys.readouterr().out == f"images to score: {command.scored}\n"
    assert not list(tmp_path.iterdir())
    best = record(command.whole, "scores.json")["metrics"][f"best-{command.score}"]
    assert command.evaluate(*words)[command.score] == best
    command.evaluate(*words)
    assert "nothing to do, the scores are there" in capsys.readouterr().out
    (tmp_path / "scores.json").unlink()
    assert command.evaluate(*words)[command.score] == best
    change = {"finetune": "--crop-pct 1", "segment": "--multi-scale"}[command.name].split()
    command.evaluate(*words, *change, code=1)
    assert f"options.{change[0].strip('-').replace('-', '_')}" in capsys.readouterr().err


# ---- values that cannot work, dry run


def test_values_out_of_range_are_refused_in_a_line(command: Command, tmp_path, capsys):
    for option, value in OUT_OF_RANGE[command.name]:
        unknown = 1 if value == "no-such-vit" else 2
        command.train(*command.data, tmp_path / "run", option, value, code=unknown)
        error = capsys.readouterr().err
        assert option.removeprefix("--") in error
        assert str(value) in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(command: Command, tmp_path, capsys):
    command.train(*command.data, tmp_path / "run", "--dry-run")
    said = capsys.readouterr().out
    assert f"steps to do: {STEPS} of {STEPS}" in said
    assert f"images: 12 to train on, {command.scored} to score on, classes: 3" in said
    assert "batch: 4 images, 1 from each of 4 lanes" in said
    assert "images that an epoch leaves out: 0" in said
    assert not (tmp_path / "run").exists()
