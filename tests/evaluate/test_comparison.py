"""The table of results: its rows, their order, and means over seeds."""

import dataclasses
import math
import statistics

import pytest

from milan_pipeline.evaluate.comparison import (
    metric_names,
    rows_of,
    to_blocks,
    to_documents,
    to_markdown,
)
from tests.support.runs import result


def test_a_row_for_each_result_by_stage_name_and_seed():
    results = [
        result("b", 1),
        result("b", 0),
        result("a", stage="segment", metrics={"miou": 1.0}),
        result("a", stage="finetune", metrics={"top1": 2.0}),
        result("z", label="A"),
    ]
    rows = rows_of(results)
    assert [(row.stage, row.encoder, row.results[0].seed) for row in rows] == [
        ("probe", "A", 0), ("probe", "b", 0), ("probe", "b", 1),
        ("finetune", "a", 0), ("segment", "a", 0),
    ]  # fmt: skip
    assert not any(row.settings for row in rows)


def test_metrics_come_in_their_order():
    names = {"aacc", "top5", "linear-sweep", "knn@100", "top1", "knn@20", "other", "linear", "miou"}
    assert metric_names(rows_of([result("a", metrics=dict.fromkeys(names, 1.0))])) == [
        "knn@20", "knn@100", "linear", "linear-sweep", "top1", "top5", "miou", "aacc", "other",
    ]  # fmt: skip


def test_runs_of_several_seeds_with_one_label_are_one_row():
    results = [
        result(f"runs/{seed}", label="MILAN", metrics={"linear": value})
        for seed, value in enumerate((80.0, 82.0, 87.0))
    ]
    (row,) = to_documents(rows_of(results, over_seeds=True), over_seeds=True)
    assert row["encoder"] == "MILAN"
    assert row["metrics"]["linear"]["mean"] == 83
    # Deviations of -3, -1 and 4: 26 in squares, over n - 1.
    assert row["metrics"]["linear"]["std"] == pytest.approx(math.sqrt(13))
    assert row["metrics"]["linear"]["n"] == 3
    assert len(set(row["config_hashes"])) == 3
    assert row["folders"] == [f"runs/{seed}/probe/0" for seed in range(3)]
    assert "83.00 ± 3.61 (3)" in to_markdown(rows_of(results, over_seeds=True), over_seeds=True)


def test_seeds_of_the_evaluation_are_one_row_and_other_options_are_not():
    drawn = [result("a", seed, content={"random_init": True}) for seed in range(3)]
    others = [
        result("a", 3),  # trained weights
        result("a", 4, content={"random_init": True, "pool": "mean"}),
        result("a", 5, content={"random_init": True}, inputs={"train": "ccccccccdddd"}),
        result("a", 6, content={"random_init": True}, stage="finetune"),
        result("a", 7, content={"random_init": True}, label="other"),
    ]
    rows = rows_of([*others, *drawn], over_seeds=True)
    assert sorted(len(row.results) for row in rows) == [1, 1, 1, 1, 1, 3]
    (joined,) = (row for row in rows if len(row.results) == 3)
    assert [found.seed for found in joined.results] == [0, 1, 2]
    assert joined.values("knn@20") == [50, 51, 52]
    assert statistics.stdev(joined.values("knn@20")) == 1
    assert joined.settings == {"pool": "cls", "train": "aaaaaaaa"}
    (fine,) = (row for row in rows if row.stage == "finetune")
    assert fine.settings == {}


def test_seeds_on_folders_of_equally_many_images_are_two_rows():
    """Folders have no hash: their fingerprints begin with the number of images."""
    results = [
        result(
            "a", seed, inputs={"val": f"8 images of 99 bytes (names {name})"}, metrics={"k": 1.0}
        )
        for seed, name in enumerate(("ab12", "cd34"))
    ]
    rows = rows_of(results, over_seeds=True)
    assert len({row.settings["val"] for row in rows}) == 2


def test_copies_of_a_result_count_once_over_seeds():
    copies = [result("a", folder="here"), result("a", folder="there"), result("a", 1)]
    (row,) = rows_of(copies, over_seeds=True)
    assert [found.folder for found in row.results] == ["here", "a/probe/1"]
    assert len(rows_of(copies)) == 3


def test_the_markdown_table_has_the_union_of_metrics():
    rows = rows_of([result("a|b"), result("c", stage="segment", metrics={"miou": 12.345})])
    head, rule, first, second = to_markdown(rows).splitlines()
    assert head == "| encoder | stage | seed | knn@20 | linear | miou | config | folder |"
    assert rule == "|" + " --- |" * 8
    hashes = [row.results[0].config_hash for row in rows]
    assert first == (
        rf"| a\|b | probe | 0 | 50.00 | 60.00 |  | {hashes[0]} | a\|b/probe/0 |"
    )  # fmt: skip
    assert second == f"| c | segment | 0 |  |  | 12.35 | {hashes[1]} | c/segment/0 |"


def test_blocks_leave_out_what_is_not_there():
    rows = rows_of([result("a"), result("c", stage="segment", metrics={"miou": 12.345})])
    hashes = [row.results[0].config_hash for row in rows]
    assert to_blocks(rows) == (
        "encoder  a\nstage    probe\nseed     0\nknn@20   50.00\nlinear   60.00\n"
        f"config   {hashes[0]}\nfolder   a/probe/0\n\n"
        "encoder  c\nstage    segment\nseed     0\nmiou     12.35\n"
        f"config   {hashes[1]}\nfolder   c/segment/0\n"
    )


def test_settings_that_differ_are_shown():
    rows = rows_of([result("a"), result("a", content={"pool": "mean", "k": [1, 2]})])
    text = to_markdown(rows)
    assert "| pool=cls |" in text
    assert "| pool=mean k=[1,2] |" in text


def test_scores_of_a_trained_model_lack_settings_of_training():
    trained = {"eval_only": False, "epochs": 3, "crop_pct": 1}
    contents = [trained, trained | {"mixup": 0}, {"eval_only": True, "crop_pct": 1}]
    rows = rows_of([result("a", content=each) for each in contents])
    shown = sorted(sorted(row.settings) for row in rows)
    assert shown == [["eval_only"], ["eval_only"], ["eval_only", "mixup"]]


def test_one_seed_has_no_spread():
    rows = rows_of([result("a")], over_seeds=True)
    assert "| 50.00 (1) |" in to_markdown(rows, over_seeds=True)
    (row,) = to_documents(rows, over_seeds=True)
    assert row["metrics"]["knn@20"] == {"mean": 50, "std": None, "n": 1}


def test_json_of_single_results():
    (row,) = to_documents(rows_of([result("a", 2)]))
    assert row == {
        "encoder": "a",
        "stage": "probe",
        "seed": 2,
        "settings": {},
        "metrics": {"knn@20": 52, "linear": 60},
        "intervals": {},
        "protocol": None,
        "config_hash": result("a", 2).config_hash,
        "folder": "a/probe/2",
    }


def test_the_usual_table_fits_a_hundred_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics = {f"knn@{k}": 40.0 for k in (10, 20, 100, 200)} | {"linear": 60.0}
    run = str(tmp_path / "runs/first/probe")
    rows = rows_of([result("runs/first", metrics=metrics, folder=run)])
    lines = to_markdown(rows, without=("config",)).splitlines()
    assert lines[2].endswith("| runs/first/probe |")
    assert max(map(len, lines)) <= 100


def test_a_score_has_its_interval_behind_it_if_there_is_room():
    given = dataclasses.replace(result("a"), intervals={"knn@20": (44.96, 55.04)})
    rows = rows_of([given])
    assert "| 50.00 (45.0\u201355.0) | 60.00 |" in to_markdown(rows)
    assert "| 50.00 | 60.00 |" in to_markdown(rows, intervals=False)
    assert "knn@20   50.00 (45.0\u201355.0)\n" in to_blocks(rows)
    assert to_documents(rows)[0]["intervals"] == {"knn@20": [44.96, 55.04]}
