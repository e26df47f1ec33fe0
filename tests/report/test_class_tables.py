"""Tables of classes: what each scores, what was taken for what."""

from pathlib import Path

import numpy as np

from milan_pipeline.evaluate.per_image import ANSWERS, COUNTS, answers_table, npy
from milan_pipeline.report.class_tables import class_tables, confusion, mistakes
from milan_pipeline.report.facts import short_key
from tests.support.runs import result


def test_rows_are_classes_and_columns_answers() -> None:
    found_YY = confusion(np.array([0, 0, 2]), np.array([0, 1, 2]), classes=2)
    assert found_YY.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_many_classes_have_their_most_frequent_mistakes(tmp_path: Path) -> None:
    label_N = np.repeat(np.arange(60), 4)
    answer_N = label_N.copy()
    answer_N[:3], answer_N[4] = 7, 9
    (tmp_path / ANSWERS).write_bytes(npy(answers_table(label_N, {"top1": answer_N})))
    metrics = {"top1": 100 * 236 / 240}
    found = result("a", stage="finetune", metrics=metrics, folder=str(tmp_path))
    classes, mistakes = class_tables(found, "run & run")
    assert (classes.title, mistakes.title) == (
        "Classes of run & run", "What was taken for what of run & run",
    )  # fmt: skip
    assert list(classes.rows[0])[:3] == ["0", "4", "25.00%"]
    assert (len(classes.rows), "50 of 60" in classes.words) == (50, True)
    assert mistakes.rows == [["0", "7", "3"], ["1", "9", "1"]]
    assert [table.anchor for table in class_tables(found, "k\udce4")] == [
        "classes-206f66206be4", "confusion-206f66206be4",
    ]  # fmt: skip


def test_thousands_of_classes_take_no_square_of_them(tmp_path: Path) -> None:
    label_N = np.array([0, 5, 99_999_999, 99_999_999])
    answer_N = np.array([0, 7, 5, 5])
    assert mistakes(label_N, answer_N) == [(99_999_999, 5, 2), (5, 7, 1)]


def test_a_segmenters_classes_have_their_iou(tmp_path: Path) -> None:
    counts_N3Y = np.array([[[3, 8, 0], [4, 10, 0], [5, 8, 0]]] * 2, np.int32)
    (tmp_path / COUNTS).write_bytes(npy(counts_N3Y))
    found = result("a", stage="segment", metrics={"miou": 65.0}, folder=str(tmp_path))
    found.extras["class_names"] = ["wall", "sky", "cup"]
    (table,) = class_tables(found, "")
    assert table.rows == [
        ["wall", "50.00%", "75.00%", "8", "10"], ["sky", "80.00%", "80.00%", "20", "16"],
    ]  # fmt: skip


def test_without_answers_there_is_no_table(tmp_path: Path) -> None:
    assert list(class_tables(result("a", folder=str(tmp_path)), "")) == []


def test_a_long_key_is_shown_by_its_folder_and_its_end() -> None:
    assert short_key("longsleeve/00123") == "longsleeve/00123"
    long = "train/longsleeve/3f9a6c1e-0d3b-4ac1-b8d1-87256fb4b9cf"
    assert short_key(long) == "longsleeve/\u2026b4b9cf"
    assert short_key("3f9a6c1e-0d3b-4ac1-87256fb4b9cf") == "\u2026-4ac1-87256fb4b9cf"
