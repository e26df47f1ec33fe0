"""Pixels become floats in one place, to the last bit as each caller's reference has them."""

import pytest
import torch

from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.images.crops import Pixels, Scaling
from milan_pipeline.models.student import patchify

# Every value in every channel.
IMAGES_BCHW = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)


def expected(scaling: Scaling) -> torch.Tensor:
    """The three formulas as the codes that they are taken from write them."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    if scaling == "pixels":  # torchvision's
        return (IMAGES_BCHW.float() / 255 - mean) / std
    if scaling == "float32 statistics":
        return (IMAGES_BCHW.float() - mean * 255) / (std * 255)
    mean, std = (  # timm's PrefetchLoader
        torch.tensor([value * 255 for value in values]).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (IMAGES_BCHW.float() - mean) / std


@pytest.mark.parametrize("scaling", ["statistics", "float32 statistics", "pixels"])
def test_images_and_patches_are_normalised_to_the_last_bit(scaling: Scaling) -> None:
    pixels = Pixels(IMAGENET_MEAN, IMAGENET_STD, scaling=scaling)
    before_BCHW = IMAGES_BCHW.clone()
    assert torch.equal(pixels(IMAGES_BCHW), expected(scaling))
    assert torch.equal(pixels.patches(patchify(IMAGES_BCHW, 4)), patchify(expected(scaling), 4))
    assert torch.equal(IMAGES_BCHW, before_BCHW)


def test_the_ways_to_scale_differ_in_the_last_bit_alone() -> None:
    exact, *others = (expected(each) for each in ("statistics", "float32 statistics", "pixels"))
    for other in others:
        assert not torch.equal(exact, other)
        torch.testing.assert_close(exact, other)
