"""timm's transformers of every family come in one form: tokens, normed at the end."""

from typing import Any

import pytest
import timm
import torch

from milan_pipeline.encoders.backbone import EncoderParts, assemble, backbone_arguments
from milan_pipeline.errors import ConfigError
from tests.support.clip import PLAIN

NAMES = [
    "vit_base_patch16_224",
    "vit_medium_patch16_gap_256",
    "vit_base_patch16_siglip_224",
    "vit_small_patch14_reg4_dinov2",
    "eva02_base_patch14_448",
    "eva_giant_patch14_224",
    "beit_base_patch16_224",
    "deit_small_distilled_patch16_224",
    "vit_relpos_medium_patch16_cls_224",
]


def parts_of(name):
    arguments = backbone_arguments({"model_name": name, **PLAIN})
    return EncoderParts(arguments, None, [0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_thing_is_a_norm_of_all_tokens(name):
    model: Any
    model, arguments = assemble(parts_of(name), origin=name)
    assert arguments["img_size"] == 32
    assert isinstance(model.get_submodule("norm"), torch.nn.LayerNorm)
    assert not [key for key in model.state_dict() if key.startswith(("head", "fc_norm", "attn_p"))]
    with torch.no_grad():
        tokens_BNE = model.eval().forward_features(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(
        tokens_BNE.mean(-1), torch.zeros(tokens_BNE.shape[:2]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")
def test_another_size_can_be_made_again_by_its_arguments(name):
    model: Any
    model, arguments = assemble(parts_of(name), origin=name, image_size=64)
    again: Any = timm.create_model(**arguments)
    again.load_state_dict(model.state_dict(), strict=True)
    images_BCHW = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tokens_BNE = model.eval().forward_features(images_BCHW)
        assert torch.equal(again.eval().forward_features(images_BCHW), tokens_BNE)
    assert tokens_BNE.shape[1] - model.num_prefix_tokens == 64


def test_an_input_that_is_no_multiple_of_the_patch_is_what_the_patches_cover():
    """Published models of 384 pixels have patches of 14, whose 27 x 27 cover 378."""
    arguments = backbone_arguments(
        {"model_name": "vit_tiny_patch16_224", "img_size": 70, "depth": 1}
    )
    assert arguments["img_size"] == 64
    state = timm.create_model("vit_tiny_patch16_224", img_size=70, depth=1).state_dict()
    parts = EncoderParts(arguments, state, [0.5] * 3, [0.5] * 3)
    model: Any
    model, _ = assemble(parts, origin="x")
    images_BCHW = torch.randn(1, 3, 64, 64, requires_grad=True)
    model.eval().forward_features(images_BCHW)[:, 1:].sum().backward()
    assert images_BCHW.grad is not None
    assert images_BCHW.grad[:, :, -1].abs().sum() > 0 < images_BCHW.grad[:, :, :, -1].abs().sum()


def test_a_model_without_a_norm_gets_none():
    described = {"model_name": "vit_base_patch16_224", "final_norm": False, **PLAIN}
    arguments = backbone_arguments(described)
    assert arguments["final_norm"] is False
    model, _ = assemble(EncoderParts(arguments, None, [0.5] * 3, [0.5] * 3), origin="plain")
    assert isinstance(model.get_submodule("norm"), torch.nn.Identity)


def test_what_would_fetch_or_only_train_is_left_out(tmp_path):
    hostile = {"checkpoint_path": str(tmp_path / "evil.pth"), "pretrained": True}
    of_training = {"drop_path_rate": 0.3, "drop_rate": 0.1, "num_classes": 10}
    plain = backbone_arguments({"model_name": "test_vit"})
    assert backbone_arguments({"model_name": "test_vit", **hostile, **of_training}) == plain


def test_a_model_of_one_size_only_says_so():
    arguments = backbone_arguments({"model_name": "cait_xxs24_224", "depth": 1})
    parts = EncoderParts(arguments, None, [0.5] * 3, [0.5] * 3)
    with pytest.raises(ConfigError, match="takes images of its own size only"):
        assemble(parts, origin="cait_xxs24_224", image_size=448)
