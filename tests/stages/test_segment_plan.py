"""What `segment` has planned: when which rate is taken."""

import pytest
import torch

from milan_pipeline.segmentation_task import Segmentation
from stages.segment import Segment
from stages.segment_plan import plan
from tests.painted import write_ade_tree


def test_the_rate_rises_for_the_warm_up_steps_and_falls_in_a_straight_line(tmp_path):
    images = write_ade_tree(tmp_path, {"training": 12, "validation": 2}) / "images"
    config = Segment(
        encoder="timm:test_vit", train=str(images / "training"), val=str(images / "validation"),
        out=str(tmp_path / "run"), classes=3, image_size=32, channels=8, batch_size=4, steps=9,
        warmup_steps=3, base_lr=0.04,
    )  # fmt: skip
    planned = plan(config, torch.device("cpu"))
    task = Segmentation(planned.built[0], planned.recipe)
    rates = [task.rate(planned.clock.fractional_epoch(step)) for step in range(10)]
    expected = [0, 1 / 3, 2 / 3, *(1 - step / 6 for step in range(7))]
    assert rates == pytest.approx([0.04 * 4 / 16 * part for part in expected])
