"""`benchmarks.codec_students`: its paired interval, and the targets that students learn."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import codec_students
from benchmarks.codec_students import CONFIG, answers, paired


def test_equal_students_differ_by_nothing() -> None:
    right = np.random.default_rng(0).random((3, 1000)) < 0.8
    found = paired(right, right)
    assert found["difference"] == 0
    assert found["interval"] == [0, 0]
    assert found["by_seed"] == [0, 0, 0]
    assert found["accuracy"] == pytest.approx(100 * right.mean(), abs=0.01)


def test_the_interval_is_that_of_the_mean_over_scenes() -> None:
    theirs = np.zeros((2, 4), dtype=bool)
    ours = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    found = paired(ours, theirs)
    # Scenes differ by 100, 50, 0, 0 points: mean 37.5, standard error 47.87 / 2.
    assert found["difference"] == 37.5
    assert found["interval"] == [pytest.approx(-9.41, abs=0.01), pytest.approx(84.41, abs=0.01)]
    assert found["by_seed"] == [25, 50]


def test_about_one_interval_in_twenty_misses() -> None:
    random = np.random.default_rng(1)
    missed = 0
    for _ in range(400):
        both = random.random((3, 500)) < 0.7
        ours, theirs = (both ^ (random.random(both.shape) < 0.1) for _ in range(2))
        low, high = paired(ours, theirs)["interval"]
        missed += not low <= 0 <= high
    assert 5 <= missed <= 40


def test_students_learn_targets_of_the_recipe_that_they_train_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the demo are extracted by another recipe."""
    called: dict[str, tuple[str, ...]] = {}

    def note(_: str, command: str, *words: str) -> None:
        called[command] = words

    monkeypatch.setattr(codec_students, "stage", note)
    with pytest.raises(FileNotFoundError):  # there are no scores
        answers(tmp_path / "demo", tmp_path, tmp_path / "test", "high", seed=0)
    extract, pack = called["extract-targets"], called["pack-targets"]
    assert extract[-2:] == called["pretrain"][-2:] == CONFIG
    assert extract[extract.index("--out") + 1] == pack[pack.index("--targets") + 1]
