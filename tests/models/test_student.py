"""The student as a whole: its encoder, its token order, what it computes for what is supervised."""

import itertools

import pytest
import torch
from timm.models import VisionTransformer

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.models.baseline_decoders import DECODERS
from milan_pipeline.models.decoder import PromptingDecoder
from milan_pipeline.models.student import (
    SUPERVISE,
    Student,
    in_grid_order,
    patchify,
    supervised_slice,
)
from milan_pipeline.models.vit import build_encoder, tokens_of
from milan_pipeline.pretraining.losses import cosine_loss
from milan_pipeline.weights.official import load_official, official_name
from tests.support.students import (
    GRID,
    NAME,
    SIZES,
    gradients,
    perturbed,
    take,
    tiny_batch,
    tiny_student,
)

# Each has something that a plain ViT lacks.
ENCODERS = (
    "vit_base_patch16_224",
    "vit_huge_patch14_224",
    "vit_small_patch14_reg4_dinov2",  # register tokens without positions, layer scale
    "vit_giant_patch14_reg4_dinov2",  # SwiGLU
    "vit_base_patch14_reg1_tipsv2",
    "vit_base_patch16_clip_224",  # norm before the blocks, no bias of the patch embedding
    "vit_base_patch16_clip_quickgelu_224",
    "deit3_small_patch16_224",  # class token without position, layer scale
    "eva_large_patch14_196",  # norm after pooling
    "beit3_base_patch16_224",  # norms within attention and MLP
    "vit_base_patch16_radio_v3",  # no final norm
    "vit_intern300m_patch14_448",  # image size open
    "vit_large_patch14_xp_224",  # parallel blocks, norms of queries and keys, no biases
    "vit_small_patch16_18x2_224",  # two attentions and two MLPs side by side
)


# ---- encoder


@pytest.mark.parametrize("name", ENCODERS)
def test_with_all_patches_kept_the_encoder_is_timms_own(name):
    student = tiny_student(name=name).eval()
    vit = student.encoder
    images, all_BL, _ = tiny_batch(kept=24)
    latent = student.encode(patchify(images, 4), all_BL)
    expected = vit.forward_features(images)
    expected = torch.cat([expected[:, :1], expected[:, vit.num_prefix_tokens :]], dim=1)
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(latent, expected, atol=1e-6 * largest, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_embedding_the_kept_alone_equals_embedding_all_and_gathering(name):
    student = tiny_student(name=name).eval()
    vit, (images, kept_BK, _) = student.encoder, tiny_batch()
    prefix = vit.num_prefix_tokens
    # A dynamic image size makes timm embed (B, H, W, E), which its `_pos_embed` flattens.
    tokens = vit._pos_embed(vit.patch_embed(images))
    tokens = torch.cat([tokens[:, :prefix], take(tokens[:, prefix:], kept_BK)], dim=1)
    expected = vit.norm(vit.blocks(vit.norm_pre(tokens)))
    expected = torch.cat([expected[:, :1], expected[:, prefix:]], dim=1)
    latent = student.encode(take(patchify(images, 4), kept_BK), kept_BK)
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(latent, expected, atol=1e-6 * largest, rtol=1e-5)


def test_register_tokens_may_have_positions_too():
    """No name of timm does it today, but its class can."""
    encoder = VisionTransformer(
        img_size=(16, 24), patch_size=4, embed_dim=24, depth=2, num_heads=2, reg_tokens=2
    )
    assert tokens_of(encoder)[1].shape == (1, 1 + 2 + 24, 24)
    decoder = PromptingDecoder(24, GRID, 12, width=8, depth=1, heads=2)
    student = perturbed(Student(encoder, decoder)).eval()
    images, all_BL, _ = tiny_batch(kept=24)
    expected = encoder.forward_features(images)
    expected = torch.cat([expected[:, :1], expected[:, 3:]], dim=1)
    latent = student.encode(patchify(images, 4), all_BL)
    torch.testing.assert_close(latent, expected, atol=1e-5, rtol=0)


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


# ---- order


def test_grid_order_undoes_student_order():
    _, kept_BK, masked_BM = tiny_batch()
    grid_BN = torch.arange(25).expand(2, -1)
    order_BN = torch.cat([torch.zeros(2, 1, dtype=torch.int64), kept_BK + 1, masked_BM + 1], dim=1)
    tokens_BNX = torch.stack([order_BN, -order_BN], dim=-1)
    expected = torch.stack([grid_BN, -grid_BN], dim=-1)
    assert torch.equal(in_grid_order(tokens_BNX, kept_BK, masked_BM), expected)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_order_of_kept_and_masked_does_not_matter(decoder):
    student = tiny_student(decoder)
    images, kept_BK, masked_BM = tiny_batch()
    patches = patchify(images, 4)

    def predict(kept_BK, masked_BM):
        pred_BND = student(take(patches, kept_BK), kept_BK, masked_BM)
        return in_grid_order(pred_BND, kept_BK, masked_BM)

    shuffled = kept_BK.flip(1), masked_BM[:, torch.randperm(18)]
    torch.testing.assert_close(
        predict(*shuffled), predict(kept_BK, masked_BM), atol=1e-5, rtol=1e-5
    )


# ---- what is supervised


@pytest.mark.parametrize(
    ("supervise", "tokens"),
    [("all", range(25)), ("masked", range(7, 25)), ("visible", range(7))],
)
def test_supervised_tokens_are_a_slice(supervise, tokens):
    wanted = supervised_slice(supervise, kept=6, patches=24)
    assert list(range(100))[wanted] == list(tokens)


def test_an_unknown_choice_of_tokens_is_refused():
    with pytest.raises(ConfigError, match="--supervise 'none' is unknown; choose one of all"):
        tiny_student(supervise="none")


@pytest.mark.parametrize(
    ("decoder", "supervise"),
    # Under "visible" the encoder of a linear decoder sees no mask tokens: another function.
    sorted(set(itertools.product(DECODERS, SUPERVISE)) - {("linear", "visible")}),
)
def test_supervised_predictions_and_their_gradients_are_those_of_the_whole(decoder, supervise):
    whole, part = tiny_student(decoder), tiny_student(decoder, supervise)
    part.load_state_dict(whole.state_dict())
    images, kept_BK, masked_BM = tiny_batch()
    batch = take(patchify(images, 4), kept_BK), kept_BK, masked_BM
    wanted = supervised_slice(supervise, kept=6, patches=24)
    expected, found = whole(*batch)[:, wanted], part(*batch)
    assert found.shape == (2, len(range(25)[wanted]), 12)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected.square().sum().backward()
    found.square().sum().backward()
    theirs = gradients(whole)
    for name, gradient in gradients(part).items():
        torch.testing.assert_close(gradient, theirs.pop(name), atol=1e-4, rtol=1e-4)
    assert not any(gradient.any() for gradient in theirs.values())


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("supervise", SUPERVISE)
@pytest.mark.parametrize("name", [NAME, "vit_small_patch14_reg4_dinov2"])
def test_every_trained_parameter_gets_a_gradient_and_no_other(name, decoder, supervise):
    student = tiny_student(decoder, supervise, name=name)
    images, kept_BK, masked_BM = tiny_batch()
    pred = student(take(patchify(images, 4), kept_BK), kept_BK, masked_BM)
    cosine_loss(pred, torch.randn_like(pred)).backward()
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert gradients(student).keys() == trained
    assert all(gradient.any() for gradient in gradients(student).values())
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert {name for name in frozen if "pos_embed" in name} >= {"encoder.pos_embed"}
    if supervise != "visible":
        assert frozen <= {"encoder.pos_embed", "decoder.pos_embed"}


def test_where_visible_tokens_alone_count_no_decoder_block_runs():
    student = tiny_student("prompting", "visible")

    def fail(*_):
        raise AssertionError("a block ran")

    for block in student.decoder.blocks:
        block.register_forward_hook(fail)
    images, kept_BK, masked_BM = tiny_batch()
    batch = take(patchify(images, 4), kept_BK), kept_BK, masked_BM
    assert student(*batch).shape == (2, 7, 12)
    student.supervise = "all"
    with pytest.raises(AssertionError, match="a block ran"):
        student(*batch)


# ---- arithmetic


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
    assert all(gradient.isfinite().all() for gradient in gradients(student).values())


@pytest.mark.parametrize("decoder", DECODERS)
def test_blocks_computed_again_give_the_same_gradients(decoder):
    student = tiny_student(decoder)
    images, kept_BK, masked_BM = tiny_batch()
    batch = take(patchify(images, 4), kept_BK), kept_BK, masked_BM
    found: list[dict[str, torch.Tensor]] = []
    runs: list[list[int]] = []
    for block in [*student.encoder.blocks, *getattr(student.decoder, "blocks", [])]:
        block.register_forward_pre_hook(lambda *_: runs[-1].append(1))
    for student.checkpoint_blocks in (False, True):
        runs.append([])
        student.zero_grad()
        student(*batch).square().sum().backward()
        found.append(gradients(student))
    assert len(runs[1]) == 2 * len(runs[0])
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_a_decoder_that_does_not_fit_is_refused():
    other = PromptingDecoder(24, (6, 4), 12, width=8, depth=1, heads=2)
    with pytest.raises(ConfigError, match="made for grid"):
        Student(build_encoder(NAME, **SIZES), other)


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
    decoder = PromptingDecoder(24, GRID, 12, width=8, depth=2, heads=2)
    student = perturbed(Student(build_encoder(NAME, **SIZES), decoder))
    load_official(student, state)
    loaded = {official_name(name): p for name, p in student.state_dict().items()}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    lacking = {name: p for name, p in state.items() if name != "norm.bias"}
    for wrong in (lacking, state | {"extra": torch.ones(1)}, state | {"norm.bias": torch.ones(3)}):
        with pytest.raises(MismatchError, match=r"norm\.bias|extra"):
            load_official(student, wrong)
