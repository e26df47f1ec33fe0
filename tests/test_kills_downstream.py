"""Processes of `segment` are killed at drawn moments; a rerun ends in the same bytes."""

import pytest

from tests.painted import write_ade_tree
from tests.stages.small_segment import TINY_VIT, outcome
from tests.test_kills import finish, kill_and_rerun, logged

pytestmark = pytest.mark.slow


def segment(images, out):
    return [
        "segment", *TINY_VIT, "--train", images / "training", "--val", images / "validation",
        "--out", out, "--classes", 3, "--channels", 8, "--batch-size", 4, "--steps", 60,
        "--eval-every", 7, "--checkpoint-every", 5, "--log-every", 1, "--base-lr", 0.02,
        "--workers", 1,
    ]  # fmt: skip


def test_segment(tmp_path):
    """Of 60 steps, with an evaluation each 7 of them and a checkpoint each 5."""
    images = write_ade_tree(tmp_path, {"training": 12, "validation": 3}) / "images"
    whole, out = tmp_path / "whole", tmp_path / "run"
    finish(segment(images, whole))
    words = segment(images, out)
    left = kill_and_rerun(words, lambda: len(logged(out)), kills=[1, 14, 33, 49], seed=6)
    assert all(0 < count < 60 for count in left)
    assert outcome(out) == outcome(whole)
    assert [row["loss"] for row in logged(out)] == [row["loss"] for row in logged(whole)]
