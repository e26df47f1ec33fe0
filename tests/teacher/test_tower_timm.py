"""timm's transformers under open_clip: features and priors against the trunk's own."""

from typing import Any

import pytest
import torch

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import TOKEN_TRUNKS, embedding, normalised, pixels, size_of, timm_tower

POOLED_BY = {
    "siglip": "pool", "eva02": "cls", "eva": "cls", "pe": "pool", "mobileclip-b": "cls",
    "registers": "cls", "beit": "cls", "relpos": "cls",
}  # fmt: skip
WITH_CLS = [*(family for family, prior in POOLED_BY.items() if family != "siglip"), "cls-avg"]


def teacher(family: str, **asked: Any) -> tuple[Teacher, Any]:
    visual = timm_tower(family)
    return Teacher(visual, TeacherSpec(name="x", **asked)), visual


@pytest.mark.parametrize("family", TOKEN_TRUNKS)
def test_the_first_token_is_the_image_embedding(family: str) -> None:
    given, visual = teacher(family, prior="uniform")
    targets, prior = given(pixels(size_of(family)))
    patches = given.grid[0] * given.grid[1]
    assert targets.shape == (3, 1 + patches, given.width)
    assert prior.shape == (3, patches)
    expected = embedding(visual, pixels(size_of(family)))
    torch.testing.assert_close(targets[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", TOKEN_TRUNKS)
def test_patches_go_through_the_final_norm_and_projection(family: str) -> None:
    given, visual = teacher(family, prior="uniform")
    hidden, _ = teacher(family, prior="uniform", space="hidden")
    trunk = visual.trunk
    x_BNW = normalised(pixels(size_of(family)))
    expected = trunk.fc_norm(trunk.forward_features(x_BNW))[:, trunk.num_prefix_tokens :]
    found, _ = hidden(pixels(size_of(family)))
    torch.testing.assert_close(found[:, 1:], expected, atol=1e-5, rtol=0)
    pooled = trunk.forward_head(trunk.forward_features(x_BNW), pre_logits=True)
    torch.testing.assert_close(found[:, 0], pooled, atol=1e-5, rtol=0)
    projected = visual.head(trunk.head(expected))
    targets, _ = given(pixels(size_of(family)))
    torch.testing.assert_close(targets[:, 1:], projected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", TOKEN_TRUNKS)
def test_the_mean_of_layers_is_that_of_towers_cut_short(family: str) -> None:
    size = size_of(family)
    given, _ = teacher(family, prior="uniform", space="hidden", layers=2)
    whole, _ = teacher(family, prior="uniform", space="hidden")
    shorter = timm_tower(family)
    shorter.trunk.blocks = shorter.trunk.blocks[:-1]
    short = Teacher(shorter, TeacherSpec(name="x", prior="uniform", space="hidden"))
    expected = (whole(pixels(size))[0] + short(pixels(size))[0]) / 2
    torch.testing.assert_close(given(pixels(size))[0], expected, atol=1e-5, rtol=0)


def softmax_of_last_block(visual: Any, size: int) -> torch.Tensor:
    """(B, N, N), head mean, by timm's own unfused attention."""
    attention, seen = visual.trunk.blocks[-1].attn, []
    attention.fused_attn = False
    hook = attention.attn_drop.register_forward_hook(lambda *call: seen.append(call[2]))
    visual.trunk.forward_features(normalised(pixels(size)))
    hook.remove()
    attention.fused_attn = True
    return torch.stack(seen).squeeze(0).mean(dim=1)


@pytest.mark.parametrize("family", WITH_CLS)
def test_the_cls_prior_is_the_softmaxed_row(family: str) -> None:
    size = size_of(family)
    given, visual = teacher(family, prior="cls")
    _, prior = given(pixels(size))
    row = softmax_of_last_block(visual, size)[:, 0, visual.trunk.num_prefix_tokens :]
    assert float(prior.std()) > 1e-3
    assert bool((prior > 0).all() and (prior.sum(dim=-1) <= 1).all())
    torch.testing.assert_close(prior, row, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["siglip", "pe"])
def test_the_pool_prior_is_the_softmaxed_row_of_the_latent(family: str) -> None:
    given, visual = teacher(family, layers=2)
    _, prior = given(pixels())
    pool = visual.trunk.attn_pool
    x_BNW = visual.trunk.forward_features(normalised(pixels()))
    q = pool.q(pool.latent).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
    k = pool.kv(x_BNW).chunk(2, dim=-1)[0].unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
    weights_BHN = (pool.q_norm(q) @ pool.k_norm(k).mT * pool.scale).softmax(dim=-1)[:, :, 0]
    expected = weights_BHN.mean(dim=1)
    torch.testing.assert_close(prior, expected[:, -16:], atol=1e-6, rtol=0)
    assert float(prior.std()) > 1e-3
    if family == "siglip":
        torch.testing.assert_close(prior.sum(dim=-1), torch.ones(3))


@pytest.mark.parametrize("family", ["siglip", "eva02", "pe", "relpos"])
def test_unfused_attention_gives_the_same_prior(family: str) -> None:
    fused, _ = teacher(family)
    plain, visual = teacher(family)
    for module in visual.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    torch.testing.assert_close(fused(pixels())[1], plain(pixels())[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", TOKEN_TRUNKS)
def test_the_attention_it_pools_by_is_the_prior(family: str) -> None:
    if family in POOLED_BY:
        assert teacher(family)[0].prior == POOLED_BY[family]
    else:
        with pytest.raises(ConfigError, match="choose --prior rollout or --prior uniform"):
            teacher(family)


def test_a_pool_of_several_latents_is_refused() -> None:
    visual = timm_tower("siglip")
    visual.trunk.attn_pool.latent_len = 2
    with pytest.raises(ConfigError, match="pools in a way that gives no feature of a single patch"):
        Teacher(visual, TeacherSpec(name="x"))
