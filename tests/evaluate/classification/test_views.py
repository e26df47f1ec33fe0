"""What a classifier is shown: drawn by seed, epoch and key; in evaluation to timm's last bit."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.transforms_factory import create_transform

from milan_pipeline.data.batching import stack
from milan_pipeline.errors import BadImageError
from milan_pipeline.evaluate.classification.views import (
    EvaluationViews,
    TrainingViews,
    ViewConfig,
    posterise,
)
from milan_pipeline.evaluate.evaluation_view import default_crop_pct
from tests.support.pictures import noise, write_photos

CONFIG = ViewConfig(
    image_size=24, mean=(0.5, 0.4, 0.3), augment="rand-m9-mstd0.5-inc1", crop_pct=0.875, seed=3
)


def sample(key="a", epoch=0, seed=0):
    buffer = io.BytesIO()
    noise((45, 38), seed=seed).save(buffer, "JPEG")
    return {
        "__key__": key, "__url__": "x.tar", "epoch": epoch, "image": buffer.getvalue(), "label": 2,
    }  # fmt: skip


def view(*samples, config=CONFIG):
    return [example.images_BCHW for example in TrainingViews(config)(samples)]


def test_examples_are_uint8_with_label_and_key():
    batch = stack(list(TrainingViews(CONFIG)([sample("a"), sample("b")])))
    assert (batch.images_BCHW.shape, batch.images_BCHW.dtype) == ((2, 3, 24, 24), torch.uint8)
    assert (batch.labels_B.tolist(), batch.labels_B.dtype) == ([2, 2], torch.int64)
    assert batch.keys == ["a", "b"]


def test_what_is_drawn_depends_on_seed_epoch_and_key_alone():
    alone = view(sample("b"))[0]
    random.seed(7)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    assert torch.equal(view(sample("a"), sample("b"))[1], alone)
    other = ViewConfig(**(vars(CONFIG) | {"seed": 4}))
    for changed in (view(sample("a")), view(sample("b", 1)), view(sample("b"), config=other)):
        assert not torch.equal(changed[0], alone)


def test_crops_are_of_any_size_and_half_of_them_flipped():
    """In a picture that gets redder to the right and greener to the bottom."""
    ramp = np.arange(0, 240, 4, dtype=np.uint8)
    red_HW, green_HW = np.meshgrid(ramp, ramp)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([red_HW, green_HW, 0 * red_HW], axis=2)).save(buffer, "PNG")
    pictures = [sample(str(n)) | {"image": buffer.getvalue()} for n in range(60)]
    plain = ViewConfig(**(vars(CONFIG) | {"augment": ""}))
    found = torch.stack(view(*pictures, config=plain)).float() / 240
    spans = (found[:, :2].amax(dim=(2, 3)) - found[:, :2].amin(dim=(2, 3))).prod(dim=1)
    # timm's crops have 8% to 100% of the image.
    assert 0.04 < spans.min() < 0.2
    assert spans.max() > 0.85
    flipped = int((found[:, 0, :, 0] > found[:, 0, :, -1]).all(dim=1).sum())
    assert 20 <= flipped <= 40


def test_augmentation_distorts_what_crop_and_flip_leave_alone():
    plain = ViewConfig(**(vars(CONFIG) | {"augment": ""}))
    pairs = [(view(sample(k))[0], view(sample(k), config=plain)[0]) for k in "abcdefgh"]
    assert sum(not torch.equal(one, two) for one, two in pairs) >= 6


def test_training_views_are_crops_of_at_least_the_smallest_share_of_the_image():
    """A horizontal ramp from 0 to 255: what a view spans of it is the width that it was cut of."""
    ramp = np.tile(np.linspace(0, 255, 64), (64, 1)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).convert("RGB").save(buffer, "PNG")
    samples = [sample(str(n)) | {"image": buffer.getvalue()} for n in range(64)]
    spans = {}
    for least in (0.08, 0.6, 1.0):
        config = ViewConfig(**(vars(CONFIG) | {"augment": "", "min_scale": least}))
        views = [v.float() for v in view(*samples, config=config)]
        spans[least] = min(float(v.max() - v.min()) / 255 for v in views)
    # The narrowest crop of a share s has a width of sqrt(3/4 s) of the side; pixels take a little.
    assert spans[0.08] < 0.45
    assert 0.6 < spans[0.6] < 0.8
    assert spans[1.0] > 0.9


def test_posterising_is_timms_and_to_no_bits_black():
    image = noise((20, 20))
    for bits in (1, 4, 8):
        ours, timms = (np.asarray(f(image, bits)) for f in (posterise, auto_augment.posterize))
        assert (ours == timms).all()
    assert not np.asarray(posterise(image, 0)).any()
    assert posterise(image, 0).mode == "RGB"


@pytest.mark.parametrize("augment", ["rand-m10-inc1-n8", "original", "augmix-m5"])
def test_no_strength_of_an_augmentation_stops_training(augment):
    """Of the first, each operation comes with a magnitude that keeps no bits."""
    config = ViewConfig(**(vars(CONFIG) | {"augment": augment}))
    assert len(view(*(sample(str(n)) for n in range(20)), config=config)) == 20


def test_evaluation_is_timms_own_to_the_last_pixel(tmp_path):
    names = write_photos(tmp_path / "photos")
    timms = create_transform(
        (3, 24, 24), interpolation="bicubic", crop_pct=0.875, use_prefetcher=True
    )
    ours = EvaluationViews(CONFIG)
    for name in sorted(set(names) - {"grey16.png"}):  # which Pillow clips to white
        path = tmp_path / "photos" / name
        found = ours({"image": path.read_bytes(), "__key__": name, "__url__": ""})
        assert torch.equal(found, timms(Image.open(path).convert("RGB"))), name


@pytest.mark.parametrize(
    "views", [EvaluationViews(CONFIG), lambda s: next(TrainingViews(CONFIG)([s]))]
)
def test_an_image_that_cannot_be_decoded_is_told_from_other_errors(views):
    with pytest.raises(BadImageError, match=r"the bytes start with b'junk'"):
        views(sample() | {"image": b"junk"})


def test_the_official_crop_up_to_224_pixels_and_the_whole_image_above():
    assert [default_crop_pct(size) for size in (64, 224, 225, 384)] == [0.875, 0.875, 1.0, 1.0]
