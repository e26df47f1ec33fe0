"""`scores.json`: written, read back, found, and hashed by what the figures depend on alone."""

import json
from typing import Any

import pytest

from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.evaluate.scores_file import (
    Result,
    config_hash,
    find_results,
    read_scores,
    write_scores,
)

CONTENT = {"encoder": "runs/a", "pool": "cls", "k": [10, 20]}
INPUTS = {"encoder": "f00d", "train": "ab", "test": "cd"}
SCORES: dict[str, Any] = {
    "stage": "probe",
    "encoder": "runs/a",
    "random_init": False,
    "seed": 3,
    "metrics": {"knn@20": 73.5, "linear": 1 / 3},
    "content": CONTENT,
    "inputs": INPUTS,
}


def test_what_is_written_is_read_back(tmp_path):
    written = Result(folder=str(tmp_path), **SCORES, label="MILAN", extras={"bad": [], "train": 60})
    write_scores(written)
    assert read_scores(str(tmp_path)) == written
    assert (written.name, written.extras) == ("MILAN", {"bad": [], "train": 60})
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["config_hash"] == config_hash(CONTENT, INPUTS)
    assert document["metrics"]["linear"] == 1 / 3
    assert document["train"] == 60


def test_names_without_a_label():
    assert Result(folder="", **SCORES).name == "runs/a"
    drawn = Result(folder="", **(SCORES | {"random_init": True}))
    assert drawn.name == "runs/a (random weights)"


def test_the_hash_is_of_content_and_inputs_but_of_no_path():
    first = config_hash(CONTENT, INPUTS)
    assert len(first) == 12
    assert int(first, 16) >= 0
    assert config_hash(dict(reversed(CONTENT.items())), INPUTS) == first
    assert config_hash(CONTENT | {"encoder": "moved/a"}, INPUTS) == first
    assert config_hash(CONTENT | {"pool": "mean"}, INPUTS) != first
    assert config_hash(CONTENT, INPUTS | {"encoder": "beef"}) != first
    assert config_hash(CONTENT | {"k": (10, 20)}, INPUTS) == first


def test_results_are_found_below_folders_once(tmp_path):
    for place in ("b/probe", "a", "a/probe"):
        write_scores(Result(folder=str(tmp_path / place), **SCORES))
    found = find_results([str(tmp_path), str(tmp_path / "a" / ".." / "a")])
    assert [one.folder for one in find_results(tmp_path)] == [one.folder for one in found]
    assert [result.folder for result in found] == [
        str(tmp_path / place) for place in ("a", "a/probe", "b/probe")
    ]


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_results_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=rf"{name} holds no scores\.json"):
        find_results([str(tmp_path / name)])


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"knn": 3.0, "linear": 4.0}', '{"stage": "probe", "metrics": {"a": "b"}}']
)
def test_damaged_and_older_scores_are_refused(tmp_path, text):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(DataError, match=r"scores\.json holds no scores of this version"):
        find_results([str(tmp_path)])


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_refused(value, tmp_path):
    write_scores(Result(folder=str(tmp_path), **SCORES))
    document = json.loads((tmp_path / "scores.json").read_text())
    document["metrics"]["linear"] = value
    (tmp_path / "scores.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="run its stage again, which writes them anew"):
        read_scores(str(tmp_path))


def test_a_score_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(DataError, match="the score miou is nan"):
        write_scores(Result(folder=str(tmp_path), **SCORES | {"metrics": {"miou": float("nan")}}))
    assert not (tmp_path / "scores.json").exists()
