"""Positions for another grid: the official interpolation, wherever a ViT meets another size."""

from typing import Any

import pytest
import timm
import torch
from torch.nn import functional as F

from milan_pipeline.evaluate.segmentation.model import HeadSpec, make_segmenter
from milan_pipeline.models.positions import positions_for, resample_positions

VIT: dict[str, Any] = {
    "model_name": "vit_tiny_patch16_224", "depth": 1, "embed_dim": 16, "num_heads": 2,
    "img_size": 32, "patch_size": 8, "num_classes": 0, "global_pool": "token",
}  # fmt: skip


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("grid", [(4, 4), (5, 8), (2, 3)])
def test_patches_are_interpolated_without_antialiasing_and_tokens_stay(prefix, grid):
    torch.manual_seed(0)
    table = torch.randn(1, prefix + 16, 6)
    patches = table[:, prefix:].reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    expected = F.interpolate(patches, grid, mode="bicubic", align_corners=False)
    found = resample_positions(table, (4, 4), grid)
    assert torch.equal(found[:, :prefix], table[:, :prefix])
    assert torch.equal(found[:, prefix:], expected.permute(0, 2, 3, 1).flatten(1, 2))


def test_a_segmenter_sees_images_of_another_size_with_the_same_positions():
    """Held against an encoder that was made for that size and given the resampled table."""
    segmenter = make_segmenter(VIT, HeadSpec(head="linear", channels=8, classes=5)).eval()
    encoder: Any = segmenter.encoder
    table = resample_positions(encoder.pos_embed.detach(), (4, 4), (5, 8))
    made: Any = timm.create_model(**(VIT | {"img_size": (40, 64)})).eval()
    made.load_state_dict(encoder.state_dict() | {"pos_embed": table})
    seen = []
    segmenter.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][-1]))
    images = torch.randn(2, 3, 40, 64)
    segmenter(images)
    expected = made.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, (5, 8))
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=0)
    assert tuple(encoder.patch_embed.grid_size) == (4, 4)
    assert encoder.pos_embed.shape == (1, 17, 16)


def test_a_vit_is_its_own_again_after_the_block_and_its_positions_learn():
    vit: Any = timm.create_model(**VIT, dynamic_img_size=True)
    with positions_for(vit, (5, 8)):
        vit.forward_features(torch.randn(1, 3, 40, 64)).square().mean().backward()
    assert vit.pos_embed is dict(vit.named_parameters())["pos_embed"]
    assert vit.pos_embed.grad.abs().sum() > 0
