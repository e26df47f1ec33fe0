"""`segment` looks at every mask before its first step, and names what is wrong with them."""

import json

import numpy as np
import pytest
from PIL import Image

from milan_pipeline.evaluate.segmentation.model import Segmenter
from tests.support.cli import run_cli
from tests.support.disturbances import asked_to_stop_at_scoring, no_targets
from tests.support.finetune import record, rows
from tests.support.pictures import write_ade_tree
from tests.support.segment import segment
from tests.support.stores import files_and_times


@pytest.fixture
def data(tmp_path):
    """ADE20K's layout: six images to learn from and three to score on, classes 1 to 3."""
    images = write_ade_tree(tmp_path / "ade", {"training": 6, "validation": 3}, first=1) / "images"
    return images / "training", images / "validation"


def masks_of(images):
    """List the masks of a folder of images."""
    return sorted((images.parent.parent / "annotations" / images.name).iterdir())


def change(path, function):
    """Write a mask's values anew."""
    Image.fromarray(function(np.array(Image.open(path))).astype(np.uint8)).save(path)


def put(value):
    """Return what sets one pixel of a mask."""

    def changed(mask):
        mask[0, 0] = value
        return mask

    return changed


def binary(images):
    """Make all masks black and white: 0 and 255."""
    for path in masks_of(images):
        change(path, lambda mask: 255 * (mask > 1))


@pytest.mark.parametrize(
    "words", [("--dry-run", "--check", "all"), ("--dry-run", "--check", "sample"), ()]
)
@pytest.mark.parametrize("part", [0, 1])
def test_a_bad_mask_is_named_before_the_first_step(part, words, data, tmp_path, capsys):
    change(masks_of(data[part])[-1], put(77))
    segment(*data, tmp_path / "run", *words, code=1)
    said = capsys.readouterr().err
    key = f"{masks_of(data[part])[-1].stem}.jpg"
    assert f"1 of 9 masks cannot be used, those of {data[part]}: '{key}' (has the value 77" in said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_looks_at_no_mask_unasked(data, tmp_path):
    change(masks_of(data[0])[0], put(77))
    segment(*data, tmp_path / "run", "--dry-run")


def test_images_that_exif_turns_are_warned_of(data, tmp_path, capsys):
    image = min(data[0].iterdir())
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(image).save(image, exif=exif)
    segment(*data, tmp_path / "run", "--dry-run", "--check", "all")
    said = capsys.readouterr().err
    assert f"1 of 6 images of --train {data[0]} are turned by their EXIF, which is ignored" in said


def test_a_mended_mask_lets_the_run_begin_with_other_options_too(data, tmp_path):
    change(masks_of(data[1])[0], put(77))
    segment(*data, tmp_path / "run", "--steps", 2, code=1)
    change(masks_of(data[1])[0], put(1))
    segment(*data, tmp_path / "run", "--steps", 1)
    assert record(tmp_path / "run", "state.json")["state"] == "done"


def test_masks_are_looked_at_once_a_run(data, tmp_path):
    segment(*data, tmp_path / "run", "--steps", 2, "--max-steps", 1)
    before = files_and_times(tmp_path / "run/labels")
    segment(*data, tmp_path / "run", "--steps", 2)
    assert files_and_times(tmp_path / "run/labels") == before != {}  # written once


def test_other_masks_to_score_on_do_not_end_a_run(data, tmp_path, capsys):
    words = ("--steps", 4, "--eval-every", 2)
    segment(*data, tmp_path / "run", *words, "--max-steps", 3)
    masks_of(data[1])[2].unlink()
    (data[1] / f"{masks_of(data[0])[2].stem}.jpg").exists()
    sorted(data[1].iterdir())[2].unlink()
    segment(*data, tmp_path / "run", *words)
    assert "has changed since 2 of the evaluations" in capsys.readouterr().err
    first, second, third = rows(tmp_path / "run", "evaluations.jsonl")
    assert [row["step"] for row in (first, second, third)] == [2, 3, 4]
    assert first["val"] == second["val"] != third["val"]
    scores = record(tmp_path / "run", "scores.json")
    assert scores["metrics"]["best-miou"] == scores["metrics"]["miou"] == third["miou"]
    assert scores["inputs"]["val"] == third["val"]


def test_a_finished_run_is_scored_again_on_other_masks(data, tmp_path):
    segment(*data, tmp_path / "run", "--steps", 1)
    masks_of(data[1])[2].unlink()
    sorted(data[1].iterdir())[2].unlink()
    segment(*data, tmp_path / "run", "--steps", 1)
    assert record(tmp_path / "run", "scores.json")["val"] == 2
    before = (tmp_path / "run/scores.json").read_bytes()
    segment(*data, tmp_path / "run", "--steps", 1)
    assert (tmp_path / "run/scores.json").read_bytes() == before


def test_masks_of_0_and_255_are_refused(data, tmp_path, capsys):
    for images in data:
        binary(images)
    segment(*data, tmp_path / "run", "--classes", 2, "--no-reduce-zero-label", code=1)
    said = capsys.readouterr().err
    assert "have pixels of class 0 alone and ignored ones" in said
    assert "255 often stands for 1" in said
    for images in data:  # the remedy
        for path in masks_of(images):
            change(path, lambda mask: mask // 255)
    words = ("--classes", 2, "--no-reduce-zero-label", "--steps", 1)
    segment(*data, tmp_path / "run", *words)
    assert record(tmp_path / "run", "scores.json")["classes_in_mean"] == 2


def test_masks_without_any_class_are_refused(data, tmp_path, capsys):
    for path in masks_of(data[1]):
        change(path, np.zeros_like)
    segment(*data, tmp_path / "run", code=1)
    assert "no pixel of the masks of --val" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused(data, tmp_path, capsys):
    segment(*data, tmp_path / "run", "--classes", 1, code=2)
    assert "--classes 1 leaves nothing to tell apart" in capsys.readouterr().err


def test_classes_that_are_not_learnt_or_not_scored_are_named(data, tmp_path, capsys):
    for path in masks_of(data[0]):
        change(path, lambda mask: np.where(mask == 2, 1, mask))
    for path in masks_of(data[1]):
        change(path, lambda mask: np.where(mask == 3, 1, mask))
    segment(*data, tmp_path / "run", "--classes", 5, "--steps", 1, "--eval-every", 1)
    said = capsys.readouterr().err
    assert "no pixel of classes 3, 4 is in --train" in said
    assert "no pixel of class 1 is in --train" in said
    assert "no pixel of class 2 is in --val" in said
    table = record(tmp_path / "run", "scores.json")
    assert table["classes_in_mean"] < 5


def test_a_bad_mask_is_named_before_a_segmenter_is_scored(data, tmp_path, capsys):
    segment(*data, tmp_path / "run", "--steps", 1)
    change(masks_of(data[1])[-1], put(77))
    for words in ((), ("--dry-run", "--check", "all")):
        with no_targets(ZeroDivisionError()):  # no image is scored
            run_cli(
                "segment", "--eval-only", "--encoder", tmp_path / "run/best.safetensors", "--val",
                data[1], "--reduce-zero-label", "--out", tmp_path / "scores", *words, code=1,
            )  # fmt: skip
        assert "1 of 3 masks cannot be used" in capsys.readouterr().err
        assert not (tmp_path / "scores").exists()


def test_other_classes_than_the_segmenters_are_refused(data, tmp_path, capsys):
    segment(*data, tmp_path / "run", "--steps", 1)
    run_cli(
        "segment", "--eval-only", "--encoder", tmp_path / "run/best.safetensors", "--val", data[1],
        "--classes", 5, "--out", tmp_path / "scores", code=2,
    )  # fmt: skip
    assert "--classes 5 is not what" in capsys.readouterr().err


@pytest.mark.parametrize(
    "scale", [("--least-scale", 1e-9, "--most-scale", 1e-8), ("--short-side", 1)]
)
def test_views_of_one_pixel_are_trained_on(scale, data, tmp_path):
    segment(*data, tmp_path / "run", *scale, "--steps", 1)


def test_what_changes_nothing_or_undoes_another_option_is_told(data, tmp_path, capsys):
    words = ("--head", "linear", "--evaluate", "whole", "--stride", 3, "--min-lr", 1)
    segment(*data, tmp_path / "run", *words, "--dry-run")
    said = capsys.readouterr().err
    assert "--channels 8 changes nothing with --head linear" in said
    assert "--stride 3 changes nothing with --evaluate whole" in said
    assert "--min-lr 1 is above 0.0025, to which --base-lr 0.01 is scaled for batches of 4" in said
    segment(*data, tmp_path / "run", "--long-side", 31, "--dry-run", code=2)
    assert "--long-side 31 is less than --image-size 32" in capsys.readouterr().err


def test_a_dry_run_refuses_single_images_that_batch_norm_cannot_norm(data, tmp_path, capsys):
    segment(*data, tmp_path / "run", "--micro-batch", 1, "--dry-run", code=2)
    assert "BatchNorm cannot norm" in capsys.readouterr().err


def test_a_set_that_is_learnt_and_scored_alike_is_warned_of(data, tmp_path, capsys):
    segment(data[0], data[0], tmp_path / "run", "--dry-run")
    assert "--val has the images of --train" in capsys.readouterr().err


def test_a_stop_in_an_evaluation_is_heeded_and_the_evaluation_repeated(data, tmp_path):
    words = ("--steps", 4, "--eval-every", 2, "--micro-batch", 2)
    segment(*data, tmp_path / "whole", *words)
    with asked_to_stop_at_scoring(1, Segmenter):
        segment(*data, tmp_path / "run", *words, code=75)
    assert json.loads((tmp_path / "run/state.json").read_text())["step"] == 2
    assert not (tmp_path / "run/evaluations.jsonl").exists()
    segment(*data, tmp_path / "run", *words)
    for name in ("evaluations.jsonl", "best.safetensors", "segmenter.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
