"""Each evaluated step once, whatever was killed; the best is kept, the first of equals."""

import json

import pytest

from milan_pipeline.training.evaluations import Evaluations


def evaluations(folder, val="v"):
    return Evaluations(folder, key="top1", val=val)


def add(folder, step, score, val="v"):
    kept = []
    evaluations(folder, val).add(step, {"top1": score}, lambda: kept.append(step))
    return bool(kept)


def lines(folder):
    rows = (folder / "evaluations.jsonl").read_text().splitlines()
    return [(row["step"], row["top1"]) for row in map(json.loads, rows)]


def test_the_best_is_kept_and_the_first_of_equals_stays(tmp_path):
    kept = [add(tmp_path, step, score) for step, score in enumerate([2.0, 2.0, 3.0, 1.0, 3.0])]
    assert kept == [True, False, True, False, False]
    assert evaluations(tmp_path).best() == {"step": 2, "top1": 3.0, "val": "v"}


def test_what_a_killed_process_did_after_its_checkpoint_is_done_again_and_counts_once(tmp_path):
    evaluations(tmp_path).forget_after(4)
    assert not (tmp_path / "evaluations.jsonl").exists()
    for step, score, val in ((4, 10.0, "v"), (8, 30.0, "v"), (8, 40.0, "w")):
        add(tmp_path, step, score, val)
    evaluations(tmp_path).forget_after(8)
    assert lines(tmp_path) == [(4, 10.0), (8, 30.0), (8, 40.0)]
    evaluations(tmp_path).forget_after(4)
    assert lines(tmp_path) == [(8, 40.0), (4, 10.0)]  # and not those of other images
    assert add(tmp_path, 8, 30.0)
    assert not add(tmp_path, 8, 9.0)  # in the place of the first
    assert lines(tmp_path) == [(8, 40.0), (4, 10.0), (8, 9.0)]


def test_nothing_is_best_of_none(tmp_path):
    assert evaluations(tmp_path).best() is None


def test_weights_are_kept_before_the_row_that_speaks_of_them(tmp_path):
    def fail():
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        evaluations(tmp_path).add(1, {"top1": 1.0}, fail)
    assert not (tmp_path / "evaluations.jsonl").exists()


def test_scores_of_other_images_are_kept_and_never_the_best(tmp_path):
    add(tmp_path, 3, 90.0, val="old")
    add(tmp_path, 9, 80.0, val="old")
    assert add(tmp_path, 6, 50.0, val="new")
    assert not add(tmp_path, 9, 40.0, val="new")
    assert lines(tmp_path) == [(3, 90.0), (9, 80.0), (6, 50.0), (9, 40.0)]
    assert evaluations(tmp_path, "new").best()["step"] == 6
    assert evaluations(tmp_path, "new").at(3) is None
    assert evaluations(tmp_path, "old").last_scored() == "new"
    evaluations(tmp_path, "old").come_last()
    assert evaluations(tmp_path, "old").last_scored() == "old"
    assert lines(tmp_path) == [(6, 50.0), (9, 40.0), (3, 90.0), (9, 80.0)]
