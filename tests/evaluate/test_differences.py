"""Which rows are told apart: by the images that only one answers rightly, or by intervals."""

import dataclasses
import io

import numpy as np
import pytest
from scipy.stats import binomtest

from milan_pipeline.evaluate.comparison import rows_of
from milan_pipeline.evaluate.differences import lines_of, ties, ties_of
from milan_pipeline.evaluate.intervals import wilson
from milan_pipeline.evaluate.per_image import (
    ANSWERS,
    COUNTS,
    answers_of,
    answers_table,
    counts_of,
    npy,
)
from milan_pipeline.evaluate.resampling import ious, resampled_mious
from tests.support.runs import result

IMAGES = 200
LABELS = np.arange(IMAGES) % 10


def headed(header):
    """Return a file of numpy's form whose header is this text."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


DAMAGED = (
    b"no array",
    b"PK\x03\x04 and no zip file",
    headed(b"(((("),
    headed(b"{'descr': '<i8', 'fortran_order': False, 'shape': (10000000000000000000,)}"),
    headed(b"{'descr': 3, 'fortran_order': False, 'shape': (3,)}"),
    npy(LABELS)[:60],
)


def probed(folder, name, right, *, kept=True, **changes):
    """Return a result with so many right answers, the first ones or those in a range."""
    right_N = np.isin(np.arange(IMAGES), right)
    answers = {"knn": np.where(right_N, LABELS, -1)}
    if kept:
        (folder / name).mkdir()
        (folder / name / ANSWERS).write_bytes(npy(answers_table(LABELS, answers)))
    metrics, intervals = {"knn@20": right_N.mean() * 100}, {"knn@20": wilson(len(right), IMAGES)}
    given = {"inputs": {"test": "f00d"}, "folder": str(folder / name)} | changes
    return dataclasses.replace(result(name, metrics=metrics, **given), intervals=intervals)


def test_answers_of_the_same_images_are_compared_in_pairs(tmp_path):
    """100 and 112 of 200: intervals overlap, but the second is right wherever the first is."""
    first, second = (probed(tmp_path, name, range(n)) for name, n in (("a", 100), ("b", 112)))
    assert ties(rows_of([first, second])) == []
    apart = probed(tmp_path, "c", range(200 - 112, 200))  # 100 that only c, 88 that only a has
    (tie,) = ties(rows_of([first, apart]))
    assert (tie.metric, tie.better.name, tie.other.name) == ("knn@20", "c", "a")
    assert tie.p == pytest.approx(binomtest(88, 188).pvalue)
    assert list(lines_of([tie])) == [
        "knn@20: c and a do not differ (McNemar's exact test, p = 0.42)"
    ]
    (row,) = ties_of(first, [tie])
    assert row == {
        "metric": "knn@20", "folder": apart.folder, "test": "McNemar's exact test", "p": tie.p,
    }  # fmt: skip
    assert ties_of(second, [tie]) == []


def test_without_answers_the_interval_of_the_difference_decides(tmp_path):
    first = probed(tmp_path, "a", range(100), kept=False)
    near, far = (probed(tmp_path, f"{n}", range(n), kept=False) for n in (112, 125))
    (tie,) = ties(rows_of([first, near, far]))[1:]
    assert (tie.better.name, tie.other.name, tie.p) == ("112", "a", None)
    assert tie.test == "95% interval of the difference"


def test_answers_of_other_weights_are_not_used(tmp_path):
    first, second = (probed(tmp_path, name, range(n)) for name, n in (("a", 100), ("b", 112)))
    (tmp_path / "b" / ANSWERS).write_bytes((tmp_path / "a" / ANSWERS).read_bytes())
    assert answers_of(second, "knn@20") is None
    (tie,) = ties(rows_of([first, second]))
    assert tie.p is None
    table_N = answers_table(LABELS, {"knn": LABELS})
    texts_N = table_N.astype([("label", "U3"), ("knn", "U3")])
    arrays = (np.array(3), np.ones(3), table_N[:0], table_N[None], table_N[0], texts_N)
    for damaged in (*DAMAGED, *map(npy, arrays)):
        (tmp_path / "b" / ANSWERS).write_bytes(damaged)
        assert answers_of(second, "knn@20") is None


def test_damaged_counts_are_not_used(tmp_path):
    kept = dataclasses.replace(result("a", metrics={"miou": 100.0}), folder=str(tmp_path))
    counts = np.ones((4, 3, 2), np.int32)
    for damaged in (*DAMAGED, *map(npy, (counts[0], counts[:, :2], counts[None], counts / 2))):
        (tmp_path / COUNTS).write_bytes(damaged)
        assert counts_of(kept, "miou") is None
    (tmp_path / COUNTS).write_bytes(npy(counts))
    found = counts_of(kept, "miou")
    assert found is not None
    assert np.array_equal(found, counts)
    assert counts_of(dataclasses.replace(kept, metrics={"miou": 90.0}), "miou") is None


def test_other_images_stages_and_settings_of_unknown_images_are_not_compared(tmp_path):
    one = probed(tmp_path, "a", range(100))
    others = [
        probed(tmp_path, "b", range(100), inputs={"test": "beef"}),
        probed(tmp_path, "c", range(100), stage="finetune"),
        *(probed(tmp_path, name, range(100), inputs={}) for name in "de"),
    ]
    assert ties(rows_of([one, *others])) == []


def test_miou_is_compared_by_a_paired_bootstrap(tmp_path, monkeypatch):
    drawn = []

    def counted(counts):
        drawn.append(counts)
        return resampled_mious(counts)

    monkeypatch.setattr("milan_pipeline.evaluate.differences.resampled_mious", counted)
    right_n = np.random.default_rng(1).integers(10, 80, size=60).astype(np.int32)
    noise_n = np.random.default_rng(2).integers(-9, 10, size=60).astype(np.int32)
    results = []
    for name, more in (("a", 0), ("b", 4), ("c", noise_n)):
        counts = np.stack([right_n + more, np.full(60, 100), right_n + more], axis=1)[..., None]
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / COUNTS, counts.astype(np.int32))
        miou = 100 * float(ious(counts.sum(axis=0))[0])
        given = {"stage": "segment", "inputs": {"val": "f"}, "folder": str(tmp_path / name)}
        results.append(result(name, metrics={"miou": miou}, **given))
    found = [({t.better.name, t.other.name}, t.test) for t in ties(rows_of(results))]
    assert found == [({"a", "c"}, "paired bootstrap over images")]
    assert len(drawn) == len(results)  # once for each, not once a pair


def test_rows_of_one_name_are_told_by_their_folders(tmp_path):
    pair = [probed(tmp_path, n, range(100), label="MILAN") for n in "ab"]
    (line,) = lines_of(ties(rows_of(pair)))
    assert "MILAN" not in line
    assert all(str(tmp_path / name) in line or f"/{name} " in line for name in "ab")
    (more,) = list(lines_of(ties(rows_of(pair)) * 15))[12:]
    assert more == "and 3 pairs more, which --json lists"


def test_files_are_arrays_without_pickles():
    rows_N = np.load(io.BytesIO(npy(answers_table(LABELS, {"knn": LABELS}))), allow_pickle=False)
    assert rows_N.dtype.names == ("label", "knn")
