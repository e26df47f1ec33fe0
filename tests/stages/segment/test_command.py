"""`segment`: what it trains, writes, goes on with and refuses."""

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.resampling import ious
from milan_pipeline.evaluate.segmentation.files import read_segmenter
from milan_pipeline.stages.segment.choices import settled
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.segment.plan import plan
from tests.support.cli import configured, run_cli
from tests.support.finetune import record, rows
from tests.support.pictures import write_ade_tree
from tests.support.segment import SHORT, TINY_VIT, segment

STEPS = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """ADE20K's layout: twelve images to learn from and five to score on."""
    root = tmp_path_factory.mktemp("ade")
    images = write_ade_tree(root, {"training": 12, "validation": 5}, first=1) / "images"
    return images / "training", images / "validation"


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An undisturbed run of nine steps, three an epoch."""
    run = tmp_path_factory.mktemp("whole") / "run"
    segment(*data, run)
    return run


def planned_run(data, *more):
    """Settle a run without beginning it."""
    words = (*TINY_VIT, *SHORT, *more, "--train", data[0], "--val", data[1], "--out", "run")
    return plan(configured("segment", *map(str, words)), torch.device("cpu"))


# ---- what it writes


def test_the_recipe_is_the_published_one():
    """MAE's ViT-B with UPerNet on ADE20K, as mmsegmentation trains it."""
    config = settled(
        Segment(encoder="x", train="x", val="x", out="x", classes=150), torch.device("cpu")
    )
    assert (config.base_lr, config.min_lr, config.weight_decay) == (1e-4, 0.0, 0.05)
    assert (config.layer_decay, config.drop_path, config.schedule) == (0.65, 0.1, "poly")
    assert (config.image_size, config.short_side, config.long_side) == (512, 512, 2048)
    assert (config.least_scale, config.most_scale, config.max_class_share) == (0.5, 2.0, 0.75)
    assert (config.evaluate, config.stride, config.head) == ("slide", 256, "upernet")
    assert config.channels == 768


def test_run_folder_is_complete(whole):
    assert [row["step"] for row in rows(whole, "log.jsonl")] == list(range(1, STEPS + 1))
    evaluated = rows(whole, "evaluations.jsonl")
    assert [(row["step"], row["epoch"]) for row in evaluated] == [(3, 1.0), (6, 2.0), (9, 3.0)]
    assert record(whole, "state.json")["state"] == "done"
    config = record(whole)
    assert config["state"] == "done"
    assert config["content"]["stride"] == 16
    scores = record(whole, "scores.json")
    last = evaluated[-1]
    assert scores["metrics"] == {
        "miou": last["miou"], "macc": last["macc"], "aacc": last["aacc"],
        "best-miou": max(row["miou"] for row in evaluated),
    }  # fmt: skip
    assert (scores["stage"], scores["train"], scores["val"]) == ("segment", 12, 5)
    card = scores["protocol"]
    assert (card["encoder"], card["crop"]) == ("trained", "windows of 32 x 32 pixels")
    assert (card["ignored"], card["training"]["steps"]) == ([255, 0], STEPS)
    counts_n3y = np.load(whole / "counts.npy", allow_pickle=False)
    assert counts_n3y.shape[:2] == (5, 3)
    images = (whole / "images.txt").read_text().splitlines()
    assert (len(images), images == sorted(images)) == (5, True)
    miou = 100 * np.nanmean(ious(counts_n3y.sum(axis=0)))
    assert miou == pytest.approx(last["miou"])
    low, high = scores["intervals"]["miou"]
    assert low <= miou <= high
    assert (whole / "examples.png").read_bytes().startswith(b"\x89PNG")


def test_the_schedule_is_the_published_one(whole):
    rates = [row["lr"] for row in rows(whole, "log.jsonl")]
    peak = 0.01 * 4 / 16  # scaled from a batch of 16; no warm-up, since a tenth of 9 steps is none
    assert rates == pytest.approx([peak * (1 - step / STEPS) for step in range(STEPS)])


def test_it_learns(tmp_path):
    tree = write_ade_tree(tmp_path, {"training": 24, "validation": 8}, size=(64, 64), block=32)
    places = (tree / "images" / "training", tree / "images" / "validation", tmp_path / "run")
    more = ("--no-reduce-zero-label", "--no-photometric", "--least-scale", 1, "--most-scale", 1)
    segment(*places, *more, "--steps", 30, "--eval-every", 30, "--base-lr", 0.02)
    losses = [row["loss"] for row in rows(tmp_path / "run", "log.jsonl")]
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    assert record(tmp_path / "run", "scores.json")["metrics"]["aacc"] > 80  # a third is chance


def test_layer_decay_slows_the_first_layers_and_not_the_head(data, tmp_path):
    """One step, of which two values of the option make other weights."""
    found = {}
    for decay in (0.5, 1):
        words = ("--max-steps", 1, "--warmup-steps", 0, "--head", "linear", "--layer-decay", decay)
        segment(*data, tmp_path / str(decay), *words)
        found[decay] = load_file(tmp_path / str(decay) / "segmenter.safetensors")
    slow, fast = found[0.5], found[1]
    assert torch.equal(slow["head.classifier.weight"], fast["head.classifier.weight"])
    assert not torch.equal(
        slow["encoder.patch_embed.proj.weight"], fast["encoder.patch_embed.proj.weight"]
    )


def test_the_end_is_a_line_of_a_table(data, tmp_path, capsys):
    segment(*data, tmp_path, "--max-steps", 1, "--label", "tiny one")
    said = capsys.readouterr().out.splitlines()
    assert re.search(r"1 step, 1 of them now; .* images/s", said[0])
    miou, macc, aacc = (
        record(tmp_path, "scores.json")["metrics"][n] for n in said[1].lower().split()[1:6:2]
    )
    assert re.match(rf"tiny one +{miou:.2f} +{macc:.2f} +{aacc:.2f} +3 +12 +5 +0$", said[2])


def test_a_frozen_encoder_stays_as_it_was(data, tmp_path):
    more = ("--head", "linear", "--freeze", "--max-steps", 3, "--evaluate", "whole")
    segment(*data, tmp_path, *more)
    segment(*data, tmp_path / "more", *more, "--base-lr", 0.5)
    one, two = (load_file(p / "segmenter.safetensors") for p in (tmp_path, tmp_path / "more"))
    encoder = [name for name in one if name.startswith("encoder.")]
    assert all(torch.equal(one[name], two[name]) for name in encoder)
    assert not torch.equal(one["head.classifier.weight"], two["head.classifier.weight"])


# ---- data


def test_a_folder_is_mixed_to_learn_from_with_its_masks_and_not_to_score_on(data):
    planned = planned_run(data)
    (train,), (scored,) = planned.train.parts, planned.val.parts
    names, seen = ([part.key(row) for row in range(len(part))] for part in (train, scored))
    assert names != sorted(names)
    masks = [Path(train.masks[row]).stem for row in range(len(train))]
    assert masks == [Path(name).stem for name in names]
    assert seen == sorted(seen)


# ---- scoring alone


@pytest.mark.slow
def test_many_scales_and_whole_images_score_too(whole, data, tmp_path):
    found = []
    for number, more in enumerate((("--multi-scale",), ("--evaluate", "whole"))):
        run_cli(
            "segment", "--eval-only", "--encoder", whole / "segmenter.safetensors", "--val",
            data[1], "--reduce-zero-label", "--out", tmp_path / str(number), *more,
        )  # fmt: skip
        found.append(record(tmp_path / str(number), "scores.json")["metrics"])
    assert found[0] != found[1]
    assert all(0 <= value <= 100 for metrics in found for value in metrics.values())


def test_masks_that_are_read_otherwise_than_in_training_are_said(whole, data, tmp_path, capsys):
    words = ("--encoder", whole / "best.safetensors", "--val", data[1], "--out", tmp_path)
    for given, said in (((), True), (("--reduce-zero-label",), False)):
        run_cli("segment", "--eval-only", *words, *given, "--dry-run")
        assert ("trained with --reduce-zero-label" in capsys.readouterr().err) == said


def test_a_segmenter_comes_back_from_its_files(whole):
    model, description = read_segmenter(str(whole / "segmenter.safetensors"))
    weights = load_file(whole / "segmenter.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert (description.spec.classes, description.image_size) == (3, 32)
    assert model.eval()(torch.zeros(1, 3, 48, 32)).main_BYHW.shape == (1, 3, 48, 32)


def test_what_is_no_segmenter_is_refused(whole, data, tmp_path, capsys):
    (tmp_path / "x.safetensors").write_bytes((whole / "segmenter.safetensors").read_bytes())
    (tmp_path / "x.json").write_text('{"timm": {}}')
    run_cli(
        "segment", "--eval-only", "--encoder", tmp_path / "x.safetensors", "--val", data[1],
        "--out", tmp_path / "run", code=1,
    )  # fmt: skip
    assert "describes no segmenter" in capsys.readouterr().err


# ---- values that cannot work, dry run


@pytest.mark.parametrize(
    ("device", "processes", "micro", "refused"),
    [
        ("cpu", 2, 256, False), ("cpu", 4, 256, True), ("cpu", 1, 1, True), ("cuda", 4, 256, False),
        ("cuda", 2, 1, False), ("cuda", 1, 256, False), ("cuda", 1, 1, True),
    ],
)  # fmt: skip
def test_one_image_a_process_is_refused_where_batch_norm_sees_it_alone(
    device, processes, micro, refused, data
):
    planned = planned_run(data, "--micro-batch", micro)
    context = pytest.raises(ConfigError, match="cannot norm") if refused else nullcontext()
    with context:
        planned.require_pairs(processes, torch.device(device))


def test_views_must_be_whole_patches(data, tmp_path, capsys):
    segment(*data, tmp_path / "run", "--image-size", 33, code=2)
    assert "33 pixels into patches; choose a multiple of 16" in capsys.readouterr().err


def test_training_needs_masks_and_scoring_a_segmenter(data, tmp_path, capsys):
    few = ("segment", "--val", data[1], "--out", tmp_path, *TINY_VIT)
    run_cli(*few, code=2)
    assert "--train is missing" in capsys.readouterr().err
    run_cli(*few, "--train", data[0], code=2)
    assert "--classes is missing" in capsys.readouterr().err
    run_cli(*few, "--eval-only", code=2)
    assert "'timm:test_vit' is no .safetensors file" in capsys.readouterr().err
