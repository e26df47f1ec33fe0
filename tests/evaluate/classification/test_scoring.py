"""Top-1 and top-5 over every image once, alone or shared out."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.classification.scoring import score
from milan_pipeline.evaluate.classification.views import EvaluationViews, ViewConfig
from milan_pipeline.evaluate.images_to_score import ImagesToScore
from milan_pipeline.evaluate.intervals import wilson
from milan_pipeline.evaluate.per_image import ANSWERS, NAMES
from milan_pipeline.images.crops import Pixels
from tests.support.labelled import COLOURS, spoil, write_coloured
from tests.support.processes import run_world

ALL_RIGHT = {"top1": 21, "top5": 21, "images": 21}
MEAN, STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Seven pictures of each colour."""
    return write_coloured(tmp_path_factory.mktemp("labels") / "pictures", 7)


def by_colour(images_BCHW):
    """Compare each image's mean colour with those of the classes."""
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    mean_B1C = images_BCHW.mean(dim=(2, 3))[:, None]
    return -(mean_B1C - colours).square().sum(dim=-1)


def scored(world, place, classify=by_colour, batch=4, *, threads=2, fraction=0.2):
    views = EvaluationViews(
        ViewConfig(image_size=16, mean=MEAN, augment="", crop_pct=0.875, seed=0)
    )
    pixels = Pixels(MEAN, STD, torch.device("cpu"))
    table = open_labelled(str(place), kind="class")
    ledger = RunLedger(place.parent / "run", "val", images=table.samples, fraction=fraction)
    images = ImagesToScore(
        table=table, ledger=ledger, batch=batch, threads=threads, world=world or World()
    )
    return score(classify, images, views, pixels)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_every_image_counts_once(pictures, batch):
    assert scored(None, pictures, batch=batch).counts() == ALL_RIGHT
    assert scored(None, pictures, batch=batch, threads=0).per_cent() == {
        "top1": 100.0, "top5": 100.0,
    }  # fmt: skip


def test_a_classifier_that_always_says_the_same(pictures):
    def of_ten(images_BCHW):
        return torch.arange(10.0).flip(0).roll(1).expand(len(images_BCHW), 10)  # 1, 2, 3, 4, 5

    found = scored(None, pictures, of_ten)
    assert found.counts() == {"top1": 7, "top5": 14, "images": 21}
    assert found.rows_n["label"].tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert set(found.rows_n["top1"].tolist()) == {1}
    assert found.notes()["intervals"] == {"top1": wilson(7, 21), "top5": wilson(14, 21)}
    kept, names = (found.files()[name] for name in (ANSWERS, NAMES))
    assert len(names.splitlines()) == 21
    assert np.load(io.BytesIO(kept))["top1"].tolist() == [1] * 21


def test_top_5_is_only_said_where_there_are_more_classes(pictures):
    scores = dataclasses.replace(scored(None, pictures), top5=None)
    assert scores.per_cent() == {"top1": 100.0}
    assert scores.counts() == {"top1": 21, "images": 21}


def test_processes_share_the_images_and_agree(pictures):
    assert [found.counts() for found in run_world(2, scored, pictures)] == [ALL_RIGHT] * 2


@pytest.mark.parametrize("size", [1, 2])
def test_what_cannot_be_decoded_is_left_out_and_listed(size, tmp_path):
    place = write_coloured(tmp_path / "pictures", 7)
    for name in ("blue/000.jpg", "red/006.jpg"):
        spoil(place / name)
    found = [scored(None, place)] if size == 1 else run_world(size, scored, place)
    assert [each.counts() for each in found] == [dict.fromkeys(ALL_RIGHT, 19)] * size
    assert found[0].rows_n["label"].tolist() == [0] * 6 + [1] * 7 + [2] * 6
    rows = json.loads((tmp_path / "run/unreadable-val.json").read_text())
    assert [row["key"] for row in rows] == ["blue/000.jpg", "red/006.jpg"]
    assert all(row["shard"] == "pictures" and row["reason"] for row in rows)
    for name in ("green/001.jpg", "green/002.jpg", "green/003.jpg"):
        spoil(place / name)
    with pytest.raises(DataError, match=r"5 of 21 images are unreadable.*pictures:blue/000.jpg \("):
        scored(None, place)


def test_images_none_of_which_can_be_decoded_have_no_score(tmp_path):
    place = write_coloured(tmp_path / "pictures", 1)
    for path in place.rglob("*.jpg"):
        spoil(path)
    with pytest.raises(DataError, match="none of the images to score on can be decoded"):
        scored(None, place, fraction=1)
