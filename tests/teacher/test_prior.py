"""The mask prior: rollout, uniform, and what a tower is asked for that it cannot give."""

import pytest
import torch
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.prior import PriorReader, settle_prior
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from milan_pipeline.teacher.tower_of_model import tower_of
from tests.support.clip import native, normalised, pixels, timm_tower


def rolled_out(layers: list[torch.Tensor]) -> torch.Tensor:
    """Attention rollout (arXiv 2005.00928) of (B, N, N) attentions, first block first."""
    result = torch.eye(layers[0].shape[-1]).expand_as(layers[0])
    for weights_BNN in layers:
        mixed = 0.5 * weights_BNN + 0.5 * torch.eye(weights_BNN.shape[-1])
        result = (mixed / mixed.sum(dim=-1, keepdim=True)) @ result
    return result


def test_rollout_is_the_product_over_open_clips_blocks() -> None:
    visual, layers = native(), []
    x_BNW = visual._embeds(normalised(pixels()))
    for block in visual.transformer.resblocks:
        normed = block.ln_1(x_BNW)
        layers.append(block.attn(normed, normed, normed, need_weights=True)[1])
        x_BNW = block(x_BNW)
    _, prior = Teacher(native(), TeacherSpec(name="x", prior="rollout"))(pixels())
    torch.testing.assert_close(prior, rolled_out(layers)[:, 0, 1:], atol=1e-6, rtol=0)
    assert bool((prior.sum(dim=-1) < 1).all())


@pytest.mark.parametrize("family", ["gap", "eva02", "relpos-shared"])
def test_rollout_is_the_product_over_timms_blocks(family: str) -> None:
    visual = timm_tower(family)
    _, prior = Teacher(visual, TeacherSpec(name="x", prior="rollout"))(pixels())
    layers: list[torch.Tensor] = []
    for block in visual.trunk.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(
            lambda _module, _given, out: layers.append(out.mean(dim=1))
        )
    visual.trunk.forward_features(normalised(pixels()))
    rows = rolled_out(layers)
    expected = rows[:, 0, 1:] if visual.trunk.num_prefix_tokens else rows.mean(dim=1)
    torch.testing.assert_close(prior, expected, atol=1e-6, rtol=0)
    assert bool((prior > 0).all())
    if not visual.trunk.num_prefix_tokens:
        torch.testing.assert_close(prior.sum(dim=-1), torch.ones(3))


def test_uniform_reads_nothing() -> None:
    reader = PriorReader(tower_of(native(), "x"), "uniform")
    assert reader.watches == []
    assert torch.equal(reader.read(2, torch.device("cpu")), torch.full((2, 16), 1 / 16))


def test_modules_are_left_as_they_were() -> None:
    tower = tower_of(timm_tower("siglip"), "x")
    pool = tower.pool_attention
    assert pool is not None
    with PriorReader(tower, "pool").reading():
        assert "forward" in vars(pool)
        with pytest.raises(ValueError, match="not enough values"):
            tower.features(torch.zeros(1), layers=1, space="hidden")
    assert "forward" not in vars(pool)


def test_attention_that_cannot_be_read_is_refused() -> None:
    tower = tower_of(timm_tower("siglip"), "x")
    tower.pool_attention = nn.Identity()
    reader = PriorReader(tower, "pool")
    with reader.reading():
        tower.features(torch.zeros(1, 3, 32, 32), layers=1, space="hidden")
    with pytest.raises(ConfigError, match="--prior pool cannot be read from this teacher's"):
        reader.read(1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("family", "asked", "said"),
    [
        ("siglip", "cls", "needs a tower with CLS token, .* choose one of pool, rollout, uniform$"),
        ("eva02", "pool", "needs a tower with attention pooling, .* one of cls, rollout, uniform$"),
        ("swin", "rollout", "needs a tower with global attention, .* choose one of uniform$"),
        ("gap", "auto", "pools by averaging, .* choose --prior rollout or --prior uniform$"),
        ("fastvit", "auto", "pools by averaging, .* choose --prior uniform$"),
    ],
)
def test_what_a_tower_cannot_give_is_refused(family: str, asked: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settle_prior(asked, tower_of(timm_tower(family), "x"), "x")


@pytest.mark.parametrize("prior", ["cls", "rollout"])
def test_a_prior_keeps_nothing_else(prior: str) -> None:
    _, found = Teacher(native(), TeacherSpec(name="x", prior=prior))(pixels())
    assert found.untyped_storage().nbytes() == found.numel() * found.element_size()
