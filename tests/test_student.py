"""The encoder, the student as a whole, the loss, and the official names."""

import json
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load, save

from milan_pipeline.decoder import PromptingDecoder, sincos_positions
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.official import load_official, official_name
from milan_pipeline.student import (
    Student,
    build_encoder,
    cosine_loss,
    encoder_arguments,
    patchify,
)

NAME = "vit_base_patch16_224"
TINY: dict[str, Any] = {
    "image_size": (16, 24),
    "patch_size": 4,
    "width": 16,
    "depth": 2,
    "heads": 2,
}
GRID = (4, 6)


def tiny_student(target_width=12):
    torch.manual_seed(0)
    decoder = PromptingDecoder(16, GRID, target_width, width=8, depth=2, heads=2)
    student = Student(build_encoder(NAME, **TINY), decoder)
    for parameter in student.parameters():  # zero biases would hide what they do
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return student


def tiny_batch(kept=6):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 16, 24, generator=generator)
    order = torch.rand(2, 24, generator=generator).argsort(dim=1)
    kept_BK, masked_BM = (part.sort(dim=1).values for part in (order[:, :kept], order[:, kept:]))
    return images, kept_BK, masked_BM


def take(patches_BLP, kept_BK):
    return patches_BLP[torch.arange(len(kept_BK))[:, None], kept_BK]


# ---- encoder


def test_with_all_patches_kept_in_any_order_the_encoder_is_timms_own():
    student = tiny_student()
    images, order_BL, _ = tiny_batch(kept=24)
    order_BL = order_BL[:, torch.randperm(24)]
    latent = student.encode(take(patchify(images, 4), order_BL), order_BL)
    expected = student.encoder.forward_features(images)
    torch.testing.assert_close(latent[:, :1], expected[:, :1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(latent[:, 1:], take(expected[:, 1:], order_BL), atol=1e-5, rtol=1e-5)


def test_initialisation_is_milans():
    torch.manual_seed(0)
    vit = build_encoder(NAME, image_size=16, patch_size=4, width=64, depth=1, heads=2)
    weights = dict(vit.named_parameters())
    assert not weights["pos_embed"].requires_grad
    torch.testing.assert_close(weights["pos_embed"].data, sincos_positions((4, 4), 64))
    for name, fan in [("patch_embed.proj", 64 + 3 * 4 * 4), ("blocks.0.attn.qkv", 64 + 192)]:
        bound = (6 / fan) ** 0.5
        assert 0.98 * bound < weights[f"{name}.weight"].abs().max() <= bound
    biases = [weight for name, weight in weights.items() if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)
    assert torch.equal(weights["norm.weight"], torch.ones(64))
    assert 0.015 < weights["cls_token"].std() < 0.025
    assert vit.norm.eps == 1e-6


def test_an_exported_encoder_loads_strictly_into_timm():
    encoder = tiny_student().encoder
    arguments = json.loads(json.dumps(encoder_arguments(NAME, **TINY)))
    again = timm.create_model(**arguments)
    again.load_state_dict(load(save(encoder.state_dict())), strict=True)
    images, _, _ = tiny_batch()
    assert torch.equal(again.eval()(images), encoder.eval()(images))


def test_without_overrides_the_arguments_leave_everything_to_timm():
    assert encoder_arguments(NAME, image_size=None, patch_size=None) == {
        "model_name": NAME,
        "pretrained": False,
        "num_classes": 0,
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_model", "no model that timm knows"),
        ("hf-hub:timm/vit_base_patch16_224.augreg", "no model that timm knows"),
        ("resnet18", "cannot be built as asked"),
        ("vit_relpos_small_patch16_224", "is not a plain VisionTransformer"),
        ("vit_base_patch16_siglip_224", "has no class token"),
        ("vit_base_patch16_reg4_gap_256", "has no class token, or register tokens"),
        ("deit3_small_patch16_224", "lacks positions"),
        ("eva_large_patch14_196", "does not end in a norm of all tokens"),
        ("vit_base_patch16_clip_224", "has a norm or dropout before its blocks"),
    ],
)
def test_another_kind_of_encoder_is_refused_by_name(name, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        build_encoder(name, **(TINY | {"depth": 1}))
    assert repr(name) in str(caught.value)
    assert "vit" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": 18}, "18x18 pixels into square patches of 4x4"),
        ({"heads": 3}, "cannot be built as asked"),
        ({"width": 18}, "multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        build_encoder(NAME, **(TINY | change))


# ---- patches


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_patchify_lays_a_patch_out_like_a_convolution_weight(dtype):
    images = torch.arange(2 * 3 * 16 * 24).reshape(2, 3, 16, 24).to(dtype)
    patches = patchify(images, 4)
    assert patches.shape == (2, 24, 48)
    assert patches.dtype == dtype
    assert torch.equal(patches[1, 6 * 2 + 5], images[1, :, 8:12, 20:24].flatten())
    assert torch.equal(patchify(images[1], 4), patches[1])


def test_patchify_refuses_a_remainder():
    with pytest.raises(ConfigError, match="18x24 pixels"):
        patchify(torch.zeros(1, 3, 18, 24), 4)


# ---- the whole


def test_token_order_does_not_matter():
    student = tiny_student()
    images, kept_BK, masked_BM = tiny_batch()
    patches = patchify(images, 4)
    pred = student(take(patches, kept_BK), kept_BK, masked_BM)
    kept_BK, masked_BM = kept_BK.flip(1), masked_BM[:, torch.randperm(18)]
    torch.testing.assert_close(
        student(take(patches, kept_BK), kept_BK, masked_BM), pred, atol=1e-5, rtol=1e-5
    )


def test_every_trained_parameter_gets_a_gradient_and_no_other():
    student = tiny_student()
    images, kept_BK, masked_BM = tiny_batch()
    pred = student(take(patchify(images, 4), kept_BK), kept_BK, masked_BM)
    cosine_loss(pred, torch.randn_like(pred)).backward()
    without = {name for name, p in student.named_parameters() if p.grad is None}
    assert without == {"encoder.pos_embed", "decoder.pos_embed"}
    assert all(p.grad.any() for p in student.parameters() if p.grad is not None)


def test_bfloat16_autocast_stays_near_float32():
    student = tiny_student()
    images, kept_BK, masked_BM = tiny_batch()
    patches_BKP = take(patchify(images, 4), kept_BK)
    target = torch.randn(2, 25, 12)
    full = cosine_loss(student(patches_BKP, kept_BK, masked_BM), target)
    with torch.autocast("cpu", torch.bfloat16):
        pred = student(patches_BKP, kept_BK, masked_BM)
        half = cosine_loss(pred, target)
    assert pred.dtype == torch.bfloat16
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.02, rtol=0)
    half.backward()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)


def test_a_decoder_that_does_not_fit_is_refused():
    other = PromptingDecoder(16, (6, 4), 12, width=8, depth=1, heads=2)
    with pytest.raises(ConfigError, match="made for grid"):
        Student(build_encoder(NAME, **TINY), other)


# ---- loss


def test_the_loss_is_the_mean_over_all_tokens_of_two_minus_two_cosines():
    target = torch.tensor([[[3.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 1.0]]])
    pred = torch.tensor([[[1.0, 0.0], [0.0, -5.0]], [[0.0, 9.0], [7.0, 7.0]]])
    torch.testing.assert_close(cosine_loss(pred, target), torch.tensor((0 + 4 + 2 + 0) / 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_is_computed_in_float32(dtype):
    pred, target = torch.randn(2, 4, 5, 64).to(dtype)
    loss = cosine_loss(pred, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cosine_loss(pred.float(), target.float()))


# ---- official names


@pytest.mark.parametrize(
    ("ours", "official"),
    [
        ("encoder.cls_token", "cls_token"),
        ("encoder.blocks.3.attn.qkv.bias", "blocks.3.attn.qkv.bias"),
        ("decoder.mask_token", "mask_token"),
        ("decoder.pos_embed", "decoder_pos_embed"),
        ("decoder.blocks.0.attn.kv.weight", "decoder_blocks.0.attn.kv.weight"),
        ("decoder.pred.weight", "decoder_pred.weight"),
    ],
)
def test_official_names(ours, official):
    assert official_name(ours) == official


def test_official_weights_load_unchanged_and_only_if_all_fit():
    state = {official_name(name): p.clone() for name, p in tiny_student().state_dict().items()}
    torch.manual_seed(5)
    decoder = PromptingDecoder(16, GRID, 12, width=8, depth=2, heads=2)
    student = Student(build_encoder(NAME, **TINY), decoder)
    load_official(student, state)
    loaded = {official_name(name): p for name, p in student.state_dict().items()}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    lacking = {name: p for name, p in state.items() if name != "norm.bias"}
    for wrong in (lacking, state | {"extra": torch.ones(1)}, state | {"norm.bias": torch.ones(3)}):
        with pytest.raises(MismatchError, match=r"norm\.bias|extra"):
            load_official(student, wrong)
