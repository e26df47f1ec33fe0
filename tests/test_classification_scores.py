"""Top-1 and top-5 over every image once, alone or shared out."""

import pytest
import torch

from milan_pipeline.classification_scores import Scores, score
from milan_pipeline.classification_task import Pixels
from milan_pipeline.classification_views import EvaluationViews, ViewConfig
from milan_pipeline.labelled import open_labelled
from tests.processes import run_world
from tests.small_labels import COLOURS, write_coloured

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


def scored(world, place, classify=by_colour, batch=4, threads=2):
    views = EvaluationViews(
        ViewConfig(image_size=16, mean=MEAN, augment="", crop_pct=0.875, seed=0)
    )
    pixels = Pixels(MEAN, STD, torch.device("cpu"))
    table = open_labelled(str(place), kind="class")
    return score(classify, table, views, pixels, batch=batch, threads=threads, world=world)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_every_image_counts_once(pictures, batch):
    assert scored(None, pictures, batch=batch) == (21, 21, 21)
    assert scored(None, pictures, batch=batch, threads=0).per_cent() == {
        "top1": 100.0, "top5": 100.0,
    }  # fmt: skip


def test_a_classifier_that_always_says_the_same(pictures):
    def of_ten(images_BCHW):
        return torch.arange(10.0).flip(0).roll(1).expand(len(images_BCHW), 10)  # 1, 2, 3, 4, 5

    assert scored(None, pictures, of_ten) == Scores(top1=7, top5=14, images=21)


def test_processes_share_the_images_and_agree(pictures):
    assert run_world(2, scored, pictures) == [(21, 21, 21)] * 2
