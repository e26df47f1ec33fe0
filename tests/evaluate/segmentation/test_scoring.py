"""mIoU, mAcc and aAcc equal those of a confusion matrix that is counted pixel by pixel."""

from typing import Any

import numpy as np
import pytest
import torch

from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.evaluate.images_to_score import ImagesToScore
from milan_pipeline.evaluate.segmentation.inference import ScoredImage
from milan_pipeline.evaluate.segmentation.masks import IGNORED, LabelConfig, Labels
from milan_pipeline.evaluate.segmentation.scoring import SegmentationScores, score
from tests.support.pictures import write_ade_tree

CLASSES = 6  # of which 4 is in no truth, and 5 in neither truth nor answers


class Answers:
    """A segmenter that answers at random, and an exhibition of what was drawn."""

    def __init__(self):
        self._generator = np.random.default_rng(0)
        self.shown, self.answered = [], []

    def __call__(self, sample):
        height = 8 + 4 * (len(self.shown) // 3)  # three at a time of one size
        truth = self._generator.integers(4, size=(height, 10)).astype(np.uint8)
        truth[self._generator.random(truth.shape) < 0.2] = IGNORED
        self.shown.append(truth)
        image = torch.zeros(3, 4, 4, dtype=torch.uint8)
        return ScoredImage([image], torch.from_numpy(truth), sample["number"])

    def labels(self, scored):
        shape = (len(scored), *scored[0].labels_HW.shape)
        answers = self._generator.integers(5, size=shape)
        self.answered += list(answers)
        return torch.from_numpy(answers)


def counted(truths, answers):
    matrix = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for truth, answer in zip(truths, answers, strict=True):
        for one, other in zip(truth.ravel(), answer.ravel(), strict=True):
            if one != IGNORED:
                matrix[one, other] += 1
    return matrix


def by_hand(matrix):
    ious, accuracies = [], []
    for y in range(CLASSES):
        right, true, said = matrix[y, y], matrix[y].sum(), matrix[:, y].sum()
        if true + said - right:
            ious.append(right / (true + said - right))
        if true:
            accuracies.append(right / true)
    shares = np.mean(ious), np.mean(accuracies), matrix.trace() / matrix.sum()
    return dict(zip(("miou", "macc", "aacc"), (100 * float(s) for s in shares), strict=True))


def test_scores_equal_a_matrix_counted_by_hand(tmp_path):
    tree = write_ade_tree(tmp_path, {"validation": 7})
    table = open_labelled(str(tree / "images" / "validation"), kind="mask")
    drawn: Any = Answers()
    ledger = RunLedger(tmp_path, "val", images=7, fraction=0)
    images = ImagesToScore(table=table, ledger=ledger, batch=2, threads=0)
    found = score(drawn, drawn, images, classes=CLASSES)
    matrix = counted(drawn.shown, drawn.answered)
    right_truth_answered = [matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)]
    assert found.totals.tolist() == np.stack(right_truth_answered).tolist()
    for counts_3Y, truth, answer in zip(found.counts_N3Y, drawn.shown, drawn.answered, strict=True):
        assert counts_3Y[1].tolist() == counted([truth], [answer]).sum(axis=1).tolist()
    assert found.per_cent() == pytest.approx(by_hand(matrix), rel=1e-12)
    assert found.images == 7
    assert np.isnan(found.ious()).tolist() == [False] * 5 + [True]
    assert np.isnan(found.accuracies()).tolist() == [False] * 4 + [True] * 2


def test_a_segmenter_that_is_always_right_has_100_per_cent():
    found = SegmentationScores(np.array([[[5, 0, 7]] * 3], np.int32), 1)
    assert found.per_cent() == {"miou": 100.0, "macc": 100.0, "aacc": 100.0}


def test_ade_masks_are_read_with_their_images(tmp_path):
    tree = write_ade_tree(tmp_path, {"training": 3, "validation": 2}, first=1)
    table = open_labelled(str(tree / "images" / "training"), kind="mask")
    meaning = Labels(LabelConfig(classes=3, ignore_index=255, reduce_zero_label=True))
    samples = list(table.read(table.places()))
    assert [s["__key__"] for s in samples] == [f"ADE_training_{n:08d}.jpg" for n in range(3)]
    decoded = [meaning(s, (40, 52)) for s in samples]
    assert {int(value) for labels in decoded for value in np.unique(labels)} == {0, 1, 2}
