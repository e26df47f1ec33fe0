"""Scores by nearest patches are those of code that shares nothing with ours but the features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.dense_agreement import (
    Patches,
    enlarged,
    logits_of_head,
    miou_of_neighbours,
    resized,
    views_of,
)
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.encoders.frozen import PixelEncoder
from milan_pipeline.evaluate.dense.retrieval import Retrieval
from milan_pipeline.evaluate.dense.views import ShowView
from milan_pipeline.evaluate.segmentation.masks import LabelConfig, Labels
from milan_pipeline.evaluate.segmentation.model import LinearHead
from milan_pipeline.images.budget import BadImageBudget
from tests.support.pictures import write_ade_tree

COUNTS = {"training": 12, "validation": 6}
GRID = 8


def patches_of(root: Path, part: str) -> Patches:
    """Read images and masks without our reader; 0 of a mask is ignored, 1 is the first class."""
    files = [sorted((root / kind / part).iterdir()) for kind in ("images", "annotations")]
    shown, masks = (np.stack([np.asarray(Image.open(f)) for f in some]) for some in files)
    found = PixelEncoder(64).patches(views_of(shown)).numpy()
    labels = resized(masks, Image.Resampling.NEAREST) - np.uint8(1)
    return Patches(found.reshape(len(found), GRID, GRID, -1), labels)


def test_neighbours_score_as_an_independent_implementation_does(tmp_path: Path) -> None:
    root = write_ade_tree(tmp_path, COUNTS, size=(40, 40))  # with pixels to ignore
    labels = Labels(LabelConfig(classes=3, ignore_index=255, reduce_zero_label=True))
    encoder, show = PixelEncoder(64), ShowView(64, labels)
    how = Retrieval(
        classes=3, neighbours=30, temperature=0.02, memory=12 * GRID**2, seed=0, batch=4,
        workers=0, stop=StopRequest(),
    )  # fmt: skip
    tables = [open_labelled(str(root / "images" / part), kind="mask") for part in COUNTS]
    budgets = [BadImageBudget(fraction=0, images=table.samples) for table in tables]
    memory = how.remember(encoder, tables[0], show, budgets[0])
    ours = how.score(memory, encoder, tables[1], show, budgets[1]).per_cent()["miou"]
    train, test = (patches_of(root, part) for part in COUNTS)
    theirs = miou_of_neighbours(train, test, 3)
    assert 30 < theirs < 99
    assert ours == pytest.approx(theirs, abs=0.05)


def test_a_linear_head_is_what_is_written_out() -> None:
    torch.manual_seed(0)
    head, maps_BEhw = LinearHead(5, 3), torch.randn(2, 5, 4, 4)
    head([maps_BEhw])  # takes statistics
    head.eval()
    with torch.no_grad():
        logits_BYhw, _ = head([maps_BEhw])
        wanted = nn.functional.interpolate(logits_BYhw, (16, 16), mode="bilinear")
    found = logits_of_head(head, maps_BEhw.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(enlarged(found[0], 16), wanted[0].permute(1, 2, 0), atol=1e-5)
