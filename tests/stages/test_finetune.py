"""`finetune`: what it trains, writes, goes on with and refuses."""

import dataclasses
import re

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.intervals import wilson
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.finetune.plan import open_class_tables, plan
from tests.support.cli import run_cli
from tests.support.disturbances import at_step, send_signal
from tests.support.finetune import SHORT, TINY_VIT, finetune, record, rows
from tests.support.labelled import write_coloured

STEPS = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve pictures to learn from and nine to score on, of three classes."""
    root = tmp_path_factory.mktemp("labelled")
    train = write_coloured(root / "train", 4)
    return train, write_coloured(root / "val", 3, seed=1, noise=120)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An undisturbed run of nine steps, three an epoch."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(*data, run)
    return run


# ---- what it writes


def test_the_recipe_is_the_official_one():
    """Section 5 of the design; a ViT-L's layer decay and drop path are given by option."""
    config = Finetune(encoder="x", train="x", val="x", out="x")
    assert (config.epochs, config.warmup) == (100, 5)
    assert (config.base_lr, config.min_lr, config.weight_decay) == (1e-4, 1e-6, 0.05)
    assert (config.layer_decay, config.drop_path) == (0.65, 0.1)
    assert config.augment == "rand-m9-mstd0.5-inc1"
    assert (config.smoothing, config.mixup, config.cutmix) == (0.1, 0.8, 1.0)
    assert (config.erasing, config.pool) == (0.25, "mean")
    assert dataclasses.replace(config, epochs=10).warmup == 1


def test_few_images_have_more_epochs_by_the_same_schedule(data, tmp_path):
    """Three steps an epoch: 3 epochs are 9 steps, and three times as many are 27."""
    train, val = map(str, data)
    config = Finetune(
        encoder="timm:test_vit", train=train, val=val, out=str(tmp_path / "run"), batch_size=4,
        epochs=3, warmup_epochs=1.0, image_size=32,
    )  # fmt: skip
    found = []
    for least in (None, 9, 20):
        planned = plan(dataclasses.replace(config, least_steps=least), torch.device("cpu"))
        recipe = planned.recipe
        due = [step for step in range(1, 28) if planned.is_due(step)]
        found.append((planned.schedule_steps, recipe.epochs, recipe.warmup_epochs, due[:3]))
    assert found == [(9, 3, 1, [3, 6, 9]), (9, 3, 1, [3, 6, 9]), (27, 9, 3, [9, 18, 27])]


def test_run_folder_is_complete(whole):
    assert [row["step"] for row in rows(whole, "log.jsonl")] == list(range(1, STEPS + 1))
    evaluated = rows(whole, "evaluations.jsonl")
    assert [(row["step"], row["epoch"]) for row in evaluated] == [(3, 1.0), (6, 2.0), (9, 3.0)]
    assert record(whole, "state.json")["state"] == "done"
    config = record(whole)
    assert config["state"] == "done"
    assert config["content"]["batch_size"] == 4
    assert config["counts"]["images_per_second"] > 0
    scores = record(whole, "scores.json")
    best = max(row["top1"] for row in evaluated)
    # Three classes: each is always among the five likeliest, and no top-5 is said.
    assert scores["metrics"] == {"top1": evaluated[-1]["top1"], "best-top1": best}
    assert (scores["stage"], scores["train"], scores["val"]) == ("finetune", 12, 9)
    answers = np.load(whole / "answers.npy", allow_pickle=False)
    assert accuracy(answers["top1"], answers["label"]) == pytest.approx(scores["metrics"]["top1"])
    images = (whole / "images.txt").read_text().splitlines()
    assert [scores["class_names"].index(name.split("/")[0]) for name in images] == (
        answers["label"].tolist()
    )
    right = int((answers["top1"] == answers["label"]).sum())
    assert scores["intervals"] == {"top1": list(wilson(right, 9))}
    assert scores["class_names"] == ["blue", "green", "red"]
    assert scores["images_per_second"] == config["counts"]["images_per_second"]


@pytest.mark.parametrize("name", ["finetuned", "best"])
def test_timm_makes_the_classifier_again(whole, name):
    description = record(whole, f"{name}.json")
    model = timm.create_model(**description["timm"])
    model.load_state_dict(load_file(whole / f"{name}.safetensors"), strict=True)
    assert model.num_classes == 3
    assert description["classes"] == ["blue", "green", "red"]
    assert description["crop_pct"] == 0.875
    evaluated = rows(whole, "evaluations.jsonl")
    best = max(evaluated, key=lambda row: row["top1"])
    of = best if name == "best" else evaluated[-1]
    assert (description["step"], description["val"]) == (of["step"], of["val"])


def test_it_learns(whole, data, tmp_path):
    losses = [row["loss"] for row in rows(whole, "log.jsonl")]
    assert min(losses[-3:]) < losses[0]
    finetune(*data, tmp_path, "--epochs", 12, "--augment", "", "--mixup", 0, "--cutmix", 0)
    assert record(tmp_path, "scores.json")["metrics"]["top1"] >= 8 / 9 * 100


def test_layer_decay_slows_the_first_layers_and_not_the_head(data, tmp_path):
    """One step, of which two values of the option make other weights."""
    found = {}
    for decay in (0.5, 1):
        words = ("--max-steps", 1, "--warmup-epochs", 0, "--layer-decay", decay)
        finetune(*data, tmp_path / str(decay), *words)
        found[decay] = load_file(tmp_path / str(decay) / "finetuned.safetensors")
    slow, fast = found[0.5], found[1]
    assert torch.equal(slow["head.weight"], fast["head.weight"])
    assert not torch.equal(slow["patch_embed.proj.weight"], fast["patch_embed.proj.weight"])


def test_the_end_is_a_line_of_a_table(data, tmp_path, capsys):
    finetune(*data, tmp_path, "--max-steps", 1, "--label", "tiny one")
    said = capsys.readouterr().out.splitlines()
    assert re.search(r"1 step, 1 of them now; .* images/s", said[0])
    assert said[1].split("   ")[0].strip() == "encoder"
    top1 = record(tmp_path, "scores.json")["metrics"]["top1"]
    assert re.match(rf"tiny one +{top1:.2f} +{top1:.2f} +12 +9 +0$", said[2])
    assert re.match(r"95% interval +[0-9.]+\u2013[0-9.]+$", said[3])


def test_a_run_past_its_steps_is_scored_where_it_is(data, tmp_path):
    with at_step(5, lambda: send_signal("SIGTERM")):
        finetune(*data, tmp_path, code=75)
    finetune(*data, tmp_path, "--max-steps", 4)
    assert [row["step"] for row in rows(tmp_path, "evaluations.jsonl")] == [3, 5]
    assert record(tmp_path, "state.json")["state"] == "done"


# ---- data


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_class_folders_are_mixed_to_learn_from_and_not_to_score_on(fraction, data):
    train, val = map(str, data)
    config = Finetune(encoder="x", train=train, val=val, out="x", label_fraction=fraction, seed=2)
    drawn, scored = open_class_tables(config)
    listed = open_labelled(train, kind="class").subset(fraction, 2).parts[0]
    keys = [part.key(row) for part in (listed, *drawn.parts) for row in range(len(listed))]
    before, after = keys[: len(listed)], keys[len(listed) :]
    assert before != after
    assert before == sorted(after)
    assert drawn.class_count == 3
    assert len({*drawn.parts[0].labels[:3].tolist()}) > 1
    assert (scored.parts[0].labels == sorted(scored.parts[0].labels)).all()


def test_other_classes_are_refused(data, tmp_path, capsys):
    other = tmp_path / "other"
    for name in ("blue", "green", "yellow"):
        (other / name).mkdir(parents=True)
        picture = next((data[1] / "red").iterdir())
        (other / name / "a.jpg").write_bytes(picture.read_bytes())
    finetune(data[0], other, tmp_path / "run", code=1)
    assert "has classes that --train" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---- encoders


def test_a_classifier_is_an_encoder_for_another(whole, data, tmp_path):
    options = ("--encoder", whole / "best.safetensors", *SHORT, "--max-steps", 1, "--min-lr", 0)
    best = load_file(whole / "best.safetensors")
    for name, more, taken in (("a", (), True), ("b", ("--random-init",), False)):
        finetune(*data, tmp_path / name, "--base-lr", 0, *more, options=options)
        began = load_file(tmp_path / name / "finetuned.safetensors")
        assert began.keys() == best.keys()
        encoder = "blocks.0.attn.qkv.weight"
        assert torch.equal(began[encoder], best[encoder]) == taken
        assert not torch.equal(began["head.weight"], best["head.weight"])


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_both_poolings_train(pool, data, tmp_path):
    finetune(*data, tmp_path, "--pool", pool, "--max-steps", 1, "--gradient-checkpointing")
    arguments = record(tmp_path, "finetuned.json")["timm"]
    assert arguments["global_pool"] == {"mean": "avg", "cls": "token"}[pool]


# ---- values that cannot work, dry run


def test_training_needs_images_and_scoring_a_classifier(data, tmp_path, capsys):
    few = ("finetune", "--val", data[1], "--out", tmp_path)
    run_cli(*few, *TINY_VIT, code=2)
    assert "--train is missing" in capsys.readouterr().err
    run_cli(*few, *TINY_VIT, "--eval-only", code=2)
    assert "'timm:test_vit' is no .safetensors file" in capsys.readouterr().err


def test_scoring_alone_has_the_classifiers_size_and_weights(whole, data, tmp_path, capsys):
    few = ("finetune", "--eval-only", "--encoder", whole / "best.safetensors", "--val", data[1])
    words = (*few, "--out", tmp_path, "--workers", 0)
    run_cli(*words, "--image-size", 64, code=2)
    assert "--image-size 64 is not that of --encoder" in capsys.readouterr().err
    run_cli(*words, "--random-init", code=2)
    assert "--random-init draws weights, and --eval-only scores" in capsys.readouterr().err
    run_cli(*words, "--epochs", 7)  # as a recipe may have it
    assert list(record(tmp_path, "scores.json")["content"]) == [
        "precision", "encoder", "eval_only", "crop_pct",
    ]  # fmt: skip
