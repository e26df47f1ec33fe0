"""What a segmenter learns from: drawn by seed, epoch and key; image and mask stay together."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from milan_pipeline.data.batching import stack
from milan_pipeline.errors import BadImageError
from milan_pipeline.evaluate.segmentation.masks import IGNORED, LabelConfig, Labels
from milan_pipeline.evaluate.segmentation.views import MaskedViewConfig, MaskedViews, ScaleRule
from tests.support.pictures import COLOURS, labels, png, sample

CONFIG = MaskedViewConfig(
    image_size=32,
    scale=ScaleRule(short_side=32, long_side=0),
    least_scale=0.5,
    most_scale=2.0,
    max_class_share=1.0,
    photometric=False,
    mean=(0.0, 0.0, 0.0),
    seed=3,
)
MEANING = Labels(LabelConfig(classes=3, ignore_index=255, reduce_zero_label=False))


def views(*samples, **changes):
    return list(MaskedViews(dataclasses.replace(CONFIG, **changes), MEANING)(samples))


def nearest_class(image_CSS):
    """Tell the class of each pixel by its colour."""
    differences = image_CSS.permute(1, 2, 0)[:, :, None].int() - torch.tensor(COLOURS).int()
    return differences.abs().sum(-1).argmin(-1)


def test_examples_are_uint8_images_and_labels():
    batch = stack(views(sample(0), sample(1, key="b")))
    assert (batch.images_BCSS.shape, batch.images_BCSS.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert (batch.labels_BSS.shape, batch.labels_BSS.dtype) == ((2, 32, 32), torch.uint8)
    assert batch.keys == ["a", "b"]


def test_image_and_mask_stay_together():
    for epoch in range(24):
        ((image, truth, _),) = views(sample(epoch, epoch=epoch))
        labelled = truth != IGNORED
        found = nearest_class(image)
        # Resampling blends colours at edges alone.
        assert (found == truth)[labelled].float().mean() > 0.9
        assert not image[:, ~labelled].any()  # filled up, where there is no image


def test_resampling_makes_up_no_class():
    """Between 0 and 2 lies 1, which no pixel is of."""
    mask = np.zeros((40, 52), np.uint8)
    mask[:, ::7] = 2
    for epoch in range(4):
        ((_, truth, _),) = views(sample(epoch=epoch, mask=png(mask)), least_scale=0.7)
        assert set(truth.unique().tolist()) <= {0, 2, IGNORED}


def test_small_images_are_filled_up_to_the_right_and_below():
    ((image, truth, _),) = views(sample(size=(40, 40)), least_scale=0.5, most_scale=0.5)
    assert (truth[:16, :16] != IGNORED).all()
    assert (truth[16:] == IGNORED).all()
    assert (truth[:, 16:] == IGNORED).all()
    assert not image[:, 16:].any()


def test_what_is_drawn_depends_on_seed_epoch_and_key_alone():
    ours = {"photometric": True}
    (alone,) = views(sample(key="b"), **ours)
    random.seed(7)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    after = views(sample(key="a"), sample(key="b"), **ours)[1]
    assert torch.equal(after.images_BCSS, alone.images_BCSS)
    assert torch.equal(after.labels_BSS, alone.labels_BSS)
    for changed, settings in (
        (sample(key="a"), ours),
        (sample(key="b", epoch=1), ours),
        (sample(key="b"), ours | {"seed": 4}),
    ):
        assert not torch.equal(views(changed, **settings)[0].labels_BSS, alone.labels_BSS)


def test_colours_change_and_labels_do_not():
    samples = [sample(key=str(n)) for n in range(8)]
    plain, tinted = views(*samples), views(*samples, photometric=True)
    pairs = list(zip(plain, tinted, strict=True))
    assert all(torch.equal(one.labels_BSS, two.labels_BSS) for one, two in pairs)
    # Each of four changes has a chance of one half: one in sixteen stays as it is.
    assert sum(not torch.equal(one.images_BCSS, two.images_BCSS) for one, two in pairs) >= 6


def test_what_fills_a_view_up_keeps_its_colour():
    settings = {"mean": (0.5, 0.5, 0.5), "photometric": True, "most_scale": 0.5}
    for key in "abcdefgh":
        ((image, truth, _),) = views(sample(key=key), **settings)
        assert (image[:, truth == IGNORED] == 128).all()


def test_half_of_the_views_are_flipped():
    whole = {"least_scale": 1.0, "most_scale": 1.0}
    size = (32, 32)
    upright = torch.from_numpy(labels(0, size).copy())
    found = [views(sample(key=str(n), size=size), **whole)[0].labels_BSS for n in range(40)]
    flipped = sum(torch.equal(view, upright.flip(-1)) for view in found)
    assert sum(torch.equal(view, upright) for view in found) + flipped == 40
    assert 10 <= flipped <= 30


def test_crops_of_one_class_are_drawn_again():
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 44:] = 1  # most crops of 32 have less than a quarter of it
    samples = [sample(key=str(n), size=(64, 64), mask=png(mask)) for n in range(16)]
    settings = {"scale": ScaleRule(short_side=64, long_side=0), "least_scale": 1, "most_scale": 1}

    def largest(found):
        shares = (np.bincount(v.labels_BSS.ravel(), minlength=2) / 32**2 for v in found)
        return [float(share.max()) for share in shares]

    assert max(largest(views(*samples, **settings))) > 0.9
    assert max(largest(views(*samples, **settings, max_class_share=0.75))) < 0.75


@pytest.mark.parametrize(
    ("rule", "factor"),
    [((512, 2048), 2.0), ((512, 768), 1.5), ((512, 0), 2.0)],
)
def test_an_image_is_as_large_as_both_limits_allow(rule, factor):
    short, long = rule
    assert ScaleRule(short_side=short, long_side=long).factor(512, 256) == factor


def test_a_damaged_image_is_refused():
    with pytest.raises(BadImageError, match="no JPEG, PNG or WebP image"):
        views(sample() | {"image": b"no image"})
