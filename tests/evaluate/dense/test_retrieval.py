"""Patches of one colour are found by colour; what cannot be decoded or has no label is told."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.encoders.frozen import PixelEncoder
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.evaluate.dense.memory import Memory
from milan_pipeline.evaluate.dense.retrieval import Retrieval, grid_of
from milan_pipeline.evaluate.dense.views import ShowView
from milan_pipeline.evaluate.resampling import TRUTH
from milan_pipeline.evaluate.segmentation.masks import LabelConfig, Labels
from milan_pipeline.images.budget import BadImageBudget
from tests.support.pictures import write_ade_tree

LABELS = Labels(LabelConfig(classes=3, ignore_index=0, reduce_zero_label=True))


def retrieval(stop: StopRequest | None = None, memory: int = 1000) -> Retrieval:
    return Retrieval(
        classes=3, neighbours=3, temperature=0.02, memory=memory, seed=0, batch=4, workers=0,
        stop=stop or StopRequest(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ade")
    write_ade_tree(root, {"training": 9, "validation": 5}, size=(64, 64), first=1)
    return root


def opened(tree: Path, part: str):
    return open_labelled(str(tree / "images" / part), kind="mask")


def budget(count: int) -> BadImageBudget:
    return BadImageBudget(fraction=0.5, images=count)


def test_colours_tell_classes_apart(tree: Path) -> None:
    encoder, show, how = PixelEncoder(64), ShowView(64, LABELS), retrieval()
    memory = how.remember(encoder, opened(tree, "training"), show, budget(9))
    assert len(memory.feature_ME) == 9 * 64
    scores = how.score(memory, encoder, opened(tree, "validation"), show, budget(5))
    assert scores.images == 5
    assert int(scores.totals[TRUTH].sum()) == 5 * 64 * 64
    assert scores.per_cent()["miou"] > 85
    fewer = retrieval(memory=90).remember(encoder, opened(tree, "training"), show, budget(9))
    assert len(fewer.feature_ME) == 90


def test_answers_are_the_shares_of_patches_enlarged_bilinearly() -> None:
    memory = Memory(torch.eye(4), torch.eye(4)[:, :3])
    patches = torch.eye(4)[[0, 1, 1, 2]][None]
    how = retrieval()
    found = how.answers(memory, patches, 8)[0]
    assert found[0, 0] == 0
    assert [found[0, -1], found[-1, 0], found[-1, -1]] == [1, 1, 2]


def test_an_image_that_cannot_be_decoded_is_left_out(tree: Path, tmp_path: Path) -> None:
    root = write_ade_tree(tmp_path, {"training": 3}, size=(64, 64), first=1)
    torn = sorted((root / "images/training").iterdir())[1]
    torn.write_bytes(torn.read_bytes()[:200])
    spent = budget(3)
    memory = retrieval().remember(
        PixelEncoder(64), opened(root, "training"), ShowView(64, LABELS), spent
    )
    assert len(memory.feature_ME) == 2 * 64
    assert len(spent.ledger) == 1


def test_masks_without_a_label_are_refused(tmp_path: Path) -> None:
    root = write_ade_tree(tmp_path, {"training": 2}, size=(64, 64), first=1)
    for mask in (root / "annotations/training").iterdir():
        Image.new("L", (64, 64)).save(mask)
    table, encoder, show = opened(root, "training"), PixelEncoder(64), ShowView(64, LABELS)
    with pytest.raises(DataError, match="no patch of the images to learn from has a label"):
        retrieval().remember(encoder, table, show, budget(2))
    memory = Memory(torch.eye(192)[:1], torch.ones(1, 3))
    with pytest.raises(DataError, match="no pixel of the masks to score on has a label"):
        retrieval().score(memory, encoder, table, show, budget(2))


def test_a_stop_ends_it(tree: Path) -> None:
    stop = StopRequest()
    stop.signal_name = "SIGTERM"
    with pytest.raises(InterruptedRunError, match="no scores were written"):
        retrieval(stop).remember(
            PixelEncoder(64), opened(tree, "training"), ShowView(64, LABELS), budget(9)
        )


@pytest.mark.parametrize("size", [63, 70])
def test_patches_that_do_not_cover_the_view_are_refused(size: int) -> None:
    """Of 63 pixels, 7 x 7 patches of 8 see 56; labels of 63 in 7 parts would be of other pixels."""
    encoder = PixelEncoder(size)
    with pytest.raises(DataError, match=f"patches of a view of {size} pixels"):
        grid_of(encoder.patches(torch.zeros(1, 3, size, size)), encoder)
