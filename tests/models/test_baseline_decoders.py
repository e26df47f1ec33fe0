"""MAE's decoder and the linear head, against plain forms that put every token into the grid."""

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.baseline_decoders import DECODERS, MaeDecoder, make_decoder
from milan_pipeline.models.student import in_grid_order, patchify
from tests.support.students import GRID, perturbed, take, tiny_batch, tiny_student


def mae_spelled_out(decoder, latent_BSE, kept_BK, masked_BM):
    """MAE's decoder: mask tokens appended, un-shuffled, positions added, blocks over the grid."""
    x_BSC = decoder.embed(latent_BSE)
    mask_BMC = decoder.mask_token.expand(*masked_BM.shape, -1)
    x_BNC = in_grid_order(torch.cat([x_BSC, mask_BMC], dim=1), kept_BK, masked_BM)
    x_BNC = x_BNC + decoder.pos_embed
    for block in decoder.blocks:
        x_BNC = block(x_BNC)
    return decoder.pred(decoder.norm(x_BNC))


def test_the_mae_decoder_equals_the_method_spelled_out():
    torch.manual_seed(0)
    decoder = perturbed(MaeDecoder(16, GRID, 12, width=8, depth=2, heads=2))
    _, kept_BK, masked_BM = tiny_batch()
    latent_BSE = torch.randn(2, 7, 16)
    pred = decoder(latent_BSE, kept_BK, masked_BM, slice(0, 25))
    expected = mae_spelled_out(decoder, latent_BSE, kept_BK, masked_BM)
    torch.testing.assert_close(
        in_grid_order(pred, kept_BK, masked_BM), expected, atol=1e-5, rtol=1e-5
    )


def test_mae_blocks_are_plain_transformer_blocks_of_eps_1e_6():
    block = MaeDecoder(16, GRID, 12, width=8, depth=1, heads=2).blocks[0]
    assert type(block) is Block
    norms = [layer for layer in block.modules() if isinstance(layer, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-6, 1e-6]


def simmim_spelled_out(student, images, masked_BM):
    """A timm ViT on the full image in whose embedding masked patches are mask tokens."""
    vit, decoder = student.encoder, student.decoder
    x_BLE = vit.patch_embed(images)
    hidden_BL = torch.zeros(x_BLE.shape[:2]).scatter(1, masked_BM, 1.0).bool()
    x_BLE = torch.where(hidden_BL[..., None], decoder.mask_token, x_BLE)
    x_BNE = vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(x_BLE))))
    return decoder.pred(torch.cat([x_BNE[:, :1], x_BNE[:, vit.num_prefix_tokens :]], dim=1))


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_the_linear_decoder_equals_the_method_spelled_out(name):
    student = tiny_student("linear", name=name)
    images, kept_BK, masked_BM = tiny_batch()
    pred = student(take(patchify(images, 4), kept_BK), kept_BK, masked_BM)
    expected = simmim_spelled_out(student, images, masked_BM)
    torch.testing.assert_close(
        in_grid_order(pred, kept_BK, masked_BM), expected, atol=1e-5, rtol=1e-5
    )


def test_where_visible_tokens_alone_count_no_mask_token_enters_the_encoder():
    student = tiny_student("linear", "visible")
    images, kept_BK, masked_BM = tiny_batch()
    patches_BKP = take(patchify(images, 4), kept_BK)
    pred = student(patches_BKP, kept_BK, masked_BM)
    assert torch.equal(pred, student.decoder.pred(student.encode(patches_BKP, kept_BK)))
    assert pred.shape == (2, 7, 12)


@pytest.mark.parametrize("name", DECODERS)
def test_initialisation_is_milans(name):
    torch.manual_seed(0)
    decoder = make_decoder(name, 64, GRID, 48, width=64, depth=1, heads=2)
    weights = dict(decoder.named_parameters())
    assert 0.012 < weights["mask_token"].std() < 0.028
    assert not any(weight.any() for key, weight in weights.items() if key.endswith("bias"))
    bound = (6 / (64 + 48)) ** 0.5
    assert 0.98 * bound < weights["pred.weight"].abs().max() <= bound


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ConfigError, match="--decoder 'none' is unknown; choose one of prompting"):
        make_decoder("none", 16, GRID, 12, width=8, depth=1, heads=2)
