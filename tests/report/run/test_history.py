"""What a run logged: torn lines, columns that begin late, buckets that average."""

import json
from pathlib import Path

import numpy as np
import pytest

from milan_pipeline.report.run.history import (
    bucketed,
    curve,
    data_wait_share,
    latest,
    read_evaluations,
    read_history,
    with_step_seconds,
)


def write(folder: Path, *lines: str) -> Path:
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_columns(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "memory_bytes": 7}]
    torn = ['{"step": 3, "lo', "[1]", '{"loss": 1}', '{"step": "x"}', "null"]
    history = read_history(write(tmp_path, *map(json.dumps, rows), *torn))
    assert history["step"].tolist() == [1, 2]
    assert history["loss"].tolist() == [2, 1.5]
    assert np.isnan(history["memory_bytes"][0])
    assert latest(history) == {"step": 2, "loss": 1.5, "memory_bytes": 7}


def test_no_log_tells_nothing(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
    assert latest({}) == {}


def test_waiting_is_a_share_of_a_steps_time(tmp_path: Path) -> None:
    row = {"step": 1, "images_per_second": 64.0, "data_wait_seconds": 0.5}
    history = read_history(write(tmp_path, json.dumps(row)))
    assert len(data_wait_share(history)) == 0
    told = with_step_seconds(history, 128)
    assert data_wait_share(told).tolist() == [0.25]
    assert latest(told)["data_wait_share"] == 0.25
    assert with_step_seconds(history, None) == history


def test_buckets_are_means_of_neighbours() -> None:
    x, y = np.arange(10.0), np.array([1.0, 3, np.nan, 5, 7, 9, 11, 13, 15, 17])
    x_B, y_B = bucketed(x, y, buckets=3)
    assert x_B.tolist() == [pytest.approx(4 / 3), 5, 8]
    assert y_B.tolist() == [3, 9, 15]
    assert [len(part) for part in bucketed(x[:0], y[:0])] == [0, 0]


def test_the_latest_figure_is_where_its_curve_ends() -> None:
    step = np.arange(1.0, 901)
    history = {"step": step, "epoch": step / 9, "loss": 1 / step}
    points = curve(history, history["loss"])
    assert points is not None
    # 300 points of three steps each.
    assert latest(history)["loss"] == points[1][-1] == pytest.approx((1 / step[-3:]).mean())
    assert latest({name: column[:35] for name, column in history.items()})["loss"] == 1 / 35


def test_evaluations_are_columns_of_their_scores(tmp_path: Path) -> None:
    row = {"step": 3, "epoch": 1.0, "top1": 40.0, "intervals": {"top1": [30, 50]}, "val": "f00d"}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
    found = {name: column.tolist() for name, column in read_evaluations(tmp_path).items()}
    assert found == {"step": [3], "epoch": [1], "top1": [40]}


def test_scores_on_other_images_are_no_part_of_the_curve(tmp_path: Path) -> None:
    rows = [{"step": step, "top1": 9.0 * step, "val": val} for step, val in ((1, "a"), (1, "b"))]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "evaluations.jsonl").write_text(text)
    assert read_evaluations(tmp_path)["step"].tolist() == [1]
