"""Each evaluated step once, whatever was killed; the best is kept, the first of equals."""

import json

import pytest

from milan_pipeline.training.validation import Evaluations


def add(folder, step, score):
    kept = []
    Evaluations(folder, key="top1").add({"step": step, "top1": score}, lambda: kept.append(step))
    return bool(kept)


def lines(folder):
    rows = (folder / "evaluations.jsonl").read_text().splitlines()
    return [(row["step"], row["top1"]) for row in map(json.loads, rows)]


def test_the_best_is_kept_and_the_first_of_equals_stays(tmp_path):
    kept = [add(tmp_path, step, score) for step, score in enumerate([2.0, 2.0, 3.0, 1.0, 3.0])]
    assert kept == [True, False, True, False, False]
    assert Evaluations(tmp_path, key="top1").best() == {"step": 2, "top1": 3.0}
    assert Evaluations(tmp_path, key="top1").best(before=2) == {"step": 0, "top1": 2.0}


def test_what_a_killed_process_did_after_its_checkpoint_is_done_again_and_counts_once(tmp_path):
    scores = {4: 10.0, 8: 30.0, 12: 20.0}
    for step, score in scores.items():
        add(tmp_path, step, score)
    assert add(tmp_path, 8, 30.0)  # the best again, not a worse one than what was dropped
    assert lines(tmp_path) == [(4, 10.0), (8, 30.0)]
    assert not add(tmp_path, 12, 20.0)
    assert lines(tmp_path) == list(scores.items())


def test_nothing_is_best_of_none(tmp_path):
    assert Evaluations(tmp_path, key="top1").best() is None


def test_weights_are_kept_before_the_row_that_speaks_of_them(tmp_path):
    def fail():
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        Evaluations(tmp_path, key="top1").add({"step": 1, "top1": 1.0}, fail)
    assert not (tmp_path / "evaluations.jsonl").exists()
