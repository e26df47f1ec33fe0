"""Training goes on without what cannot be decoded, and lists it; so do exams."""

import json

import pytest
import simplejpeg
from PIL import ImageFile

from tests.support.cli import run_cli
from tests.support.finetune import finetune
from tests.support.labelled import spoil, write_coloured
from tests.support.pictures import write_ade_tree, write_picture
from tests.support.pretrain import SHORT, TINY_STUDENT, log, weights
from tests.support.segment import segment

PUT_UP_WITH = ("--max-bad-fraction", 0.2)


def listed(run, what):
    rows = json.loads((run / f"unreadable-{what}.json").read_text())
    assert all(set(row) == {"shard", "key", "reason"} for row in rows)
    return [row["key"] for row in rows]


def scores(run):
    return json.loads((run / "scores.json").read_text())


def counts(run):
    return json.loads((run / "config.json").read_text())["counts"]


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Twelve pictures to learn from, of which one is cut off, and nine, of which two."""
    root = tmp_path_factory.mktemp("coloured")
    train = write_coloured(root / "train", 4)
    val = write_coloured(root / "val", 3, seed=1, noise=120)
    for path in (train / "red/001.jpg", val / "blue/000.jpg", val / "green/002.jpg"):
        spoil(path)
    return train, val


@pytest.fixture(scope="module")
def fine_tuned(coloured, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "whole"
    finetune(*coloured, run, "--max-bad-fraction", 0.3)
    return run


def test_fine_tuning_lists_what_it_left_out(fine_tuned, coloured, capsys):
    assert listed(fine_tuned, "train") == ["red/001.jpg"]
    assert listed(fine_tuned, "val") == ["blue/000.jpg", "green/002.jpg"]
    expected = {"train": 1, "val": 2}
    assert scores(fine_tuned)["unreadable"] == counts(fine_tuned)["unreadable"] == expected
    out = fine_tuned.parent / "alone"
    run_cli(
        "finetune", "--eval-only", "--encoder", fine_tuned / "finetuned.safetensors", "--val",
        coloured[1], "--out", out, "--workers", 0, "--max-bad-fraction", 0.3,
    )  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1].split()[-2:] == ["9", "2"]
    assert scores(out)["metrics"]["top1"] == scores(fine_tuned)["metrics"]["top1"]
    assert listed(out, "val") == listed(fine_tuned, "val")
    assert counts(out)["images"] == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_in_parts_ends_the_same_and_lists_the_same(fine_tuned, coloured, tmp_path, workers):
    more = ("--max-bad-fraction", 0.3, "--workers", workers)
    finetune(*coloured, tmp_path, *more, "--max-steps", 2)
    finetune(*coloured, tmp_path, *more)
    for name in ("finetuned.safetensors", "unreadable-train.json", "unreadable-val.json"):
        assert (tmp_path / name).read_bytes() == (fine_tuned / name).read_bytes()


def test_too_many_end_the_exam_by_name(coloured, tmp_path, capsys):
    finetune(*coloured, tmp_path, code=1)
    error = capsys.readouterr().err
    assert "Error: 2 of 9 images are unreadable, more than --max-bad-fraction 0.01" in error
    assert "val:blue/000.jpg (the image cannot be decoded" in error


@pytest.fixture(scope="module")
def half_packed(tmp_path_factory):
    """Shards of 24 pictures of which two are cut off."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(24):
        write_picture(root / "pictures" / f"{number:03d}.jpg", number)
    for name in ("007", "019"):
        spoil(root / "pictures" / f"{name}.jpg")
    run_cli("pack-images", root / "pictures", root / "shards", "--samples-per-shard", 10)
    return root / "shards"


def pretrain(images, out, *more, code=0):
    words = ("--target", "pixels", "--image-size", 32, "--images", images, "--out", out)
    run_cli("pretrain", *words, *TINY_STUDENT, *SHORT, *more, code=code)


@pytest.mark.slow
def test_pretraining_of_pixels_lists_what_it_left_out(half_packed, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(half_packed, whole, *PUT_UP_WITH)
    assert listed(whole, "train") == ["007", "019"]
    assert counts(whole)["unreadable"] == 2
    pretrain(half_packed, parts, *PUT_UP_WITH, "--max-steps", 5, "--workers", 1)
    pretrain(half_packed, parts, *PUT_UP_WITH)
    assert weights(parts) == weights(whole)
    assert listed(parts, "train") == listed(whole, "train")
    assert [row["loss"] for row in log(parts)] == [row["loss"] for row in log(whole)]
    pretrain(half_packed, tmp_path / "few", code=1)
    assert "2 of 24 images are unreadable" in capsys.readouterr().err


def test_an_image_with_a_target_that_cannot_be_decoded_is_an_error(
    half_packed, tiny_clip, tmp_path, capsys, monkeypatch
):
    """It could be, once: something has changed. What extraction left out is no error."""
    teacher, store = ("--teacher", f"local-dir:{tiny_clip}"), tmp_path / "t.zarr"
    run_cli(
        "extract-targets", "--images", half_packed, "--out", store, *teacher, "--batch-size", 4,
        *PUT_UP_WITH,
    )  # fmt: skip
    run_cli("pack-targets", "--targets", store, "--out", tmp_path / "targets")
    words = ("--images", half_packed, "--targets", tmp_path / "targets", *TINY_STUDENT, *SHORT)
    run_cli("pretrain", *words, "--out", tmp_path / "run")
    assert not (tmp_path / "run/unreadable-train.json").exists()

    def rotten(*_args, **_options):
        raise OSError("it has rotted")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", rotten)
    monkeypatch.setattr(ImageFile.ImageFile, "load", rotten)
    run_cli("pretrain", *words, "--out", tmp_path / "rotten", *PUT_UP_WITH, code=1)
    assert "sample '" in capsys.readouterr().err


def test_segmentation_lists_what_it_left_out(tmp_path):
    sets = {"training": 12, "validation": 5}
    root = write_ade_tree(tmp_path / "ade", sets, first=1) / "images"
    bad = [sorted((root / name).iterdir())[3] for name in sets]
    for path in bad:
        spoil(path)
    run, alone = tmp_path / "run", tmp_path / "alone"
    segment(root / "training", root / "validation", run)
    assert listed(run, "train") == [bad[0].name]
    assert listed(run, "val") == [bad[1].name]
    assert scores(run)["unreadable"] == {"train": 1, "val": 1}
    run_cli(
        "segment", "--eval-only", "--encoder", run / "segmenter.safetensors", "--val",
        root / "validation", "--out", alone, "--workers", 0, "--reduce-zero-label",
    )  # fmt: skip
    assert scores(alone)["metrics"]["miou"] == scores(run)["metrics"]["miou"]
    assert counts(alone) == {"images": 4, "unreadable": 1}
