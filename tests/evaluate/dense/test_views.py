"""Views of images with masks, and the share of each class in a patch."""

import numpy as np
import torch

from milan_pipeline.evaluate.dense.views import DenseView, ShowView, shares_of
from milan_pipeline.evaluate.segmentation.masks import IGNORED, LabelConfig, Labels
from tests.support.pictures import COLOURS, labels, sample

LABELS = Labels(LabelConfig(classes=4, ignore_index=255, reduce_zero_label=False))


def test_image_and_mask_are_resized_together() -> None:
    view = ShowView(32, LABELS)(sample(3, size=(64, 64)))
    assert isinstance(view, DenseView)
    assert (view.pixels_CSS.shape, view.pixels_CSS.dtype) == ((3, 32, 32), torch.uint8)
    whole = labels(3, (64, 64))
    inner = np.equal.reduce([whole[y::2, x::2] == whole[::2, ::2] for y in (0, 1) for x in (0, 1)])
    assert np.array_equal(view.labels_SS.numpy()[inner], whole[::2, ::2][inner])
    colour = COLOURS[view.labels_SS.numpy()].astype(int)
    apart = np.abs(view.pixels_CSS.permute(1, 2, 0).numpy().astype(int) - colour).max(axis=-1)
    assert (apart[inner] < 128).mean() > 0.9  # an edge may be blurred


def test_an_image_that_cannot_be_decoded_is_told() -> None:
    found = ShowView(32, LABELS)(sample() | {"image": b"no picture"})
    assert isinstance(found, dict)
    assert (found["shard"], found["key"]) == ("x.tar", "a")


def test_shares_are_of_labelled_pixels() -> None:
    labels_BSS = torch.full((1, 4, 4), IGNORED, dtype=torch.uint8)
    labels_BSS[0, :2, :2] = torch.tensor([[0, 0], [1, IGNORED]])
    labels_BSS[0, :2, 2:] = 2
    labels_BSS[0, 2:, 2:] = torch.tensor([[1, 2], [2, 2]])
    assert torch.allclose(
        shares_of(labels_BSS, 2, 3),
        torch.tensor([[[2 / 3, 1 / 3, 0], [0, 0, 1], [0, 0, 0], [0, 0.25, 0.75]]]),
    )
