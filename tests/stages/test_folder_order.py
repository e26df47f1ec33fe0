"""Stages that train learn from a folder's files in another order than they lie in."""

import pytest
import torch

from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.finetune.plan import open_class_tables
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.segment.plan import plan
from tests.support.labelled import write_coloured
from tests.support.pictures import write_ade_tree


def finetunes(folder):
    train = str(write_coloured(folder, 4))
    return open_class_tables(Finetune(encoder="x", train=train, val=train, out="x"))


def segments(folder):
    train = str(write_ade_tree(folder, {"training": 12}) / "images" / "training")
    planned = plan(
        Segment(
            encoder="timm:test_vit", train=train, val=train, out=str(folder / "run"), classes=3,
            image_size=32, channels=8, batch_size=4,
        ),
        torch.device("cpu"),
    )  # fmt: skip
    return planned.train, planned.val


@pytest.mark.parametrize("tables", [finetunes, segments])
def test_files_are_trained_on_in_a_permuted_order_and_scored_in_their_own(tables, tmp_path):
    train, scored = (
        [part.key(row) for part in table.parts for row in range(len(part))]
        for table in tables(tmp_path)
    )
    assert len(scored) == 12
    assert scored == sorted(scored)
    assert train != scored
    assert sorted(train) == scored
