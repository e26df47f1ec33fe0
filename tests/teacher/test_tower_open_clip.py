"""open_clip's own towers: features as its `forward` has them, priors as torch's attention has."""

from typing import Any

import pytest
import torch

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from milan_pipeline.teacher.tower_of_model import tower_of
from tests.support.clip import embedding, native, normalised, pixels

CLIPA = {"pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True}
COCA = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 5}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "quickgelu": {"quick_gelu": True},
    "layer scale": {"ls_init_value": 0.1},
    "query and key norms": {"qk_norm": True},
    "scaled heads": {"scale_heads": True, "scale_attn": True, "scale_fc": True},
    "CLIPA": CLIPA,
    "mean of normed": {"pool_type": "avg"},
    "CoCa": COCA | {"output_tokens": True},
}
PROJECTS_IN_POOL = "CoCa"


def teacher(case: str, **asked: Any) -> tuple[Teacher, Any]:
    """The teacher, and a tower of the same weights as open_clip built it."""
    given = Teacher(native(**CASES[case]), TeacherSpec(name="x", **asked))
    return given, native(**CASES[case])


def tokens_after(visual: Any, layers: int) -> list[torch.Tensor]:
    """The tokens after each of the last blocks, CLS first."""
    seen = visual.forward_intermediates(
        normalised(pixels()), indices=layers, output_fmt="NLC", output_extra_tokens=True
    )
    pairs = zip(seen["image_intermediates_prefix"], seen["image_intermediates"], strict=True)
    return [torch.cat(pair, dim=1) for pair in pairs]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_the_first_token_is_the_image_embedding(case: str, layers: int) -> None:
    given, visual = teacher(case, prior="uniform", layers=layers)
    targets, _ = given(pixels())
    assert targets.shape == (3, 17, 24)
    if layers == 1:
        torch.testing.assert_close(targets[:, 0], embedding(visual, pixels()), atol=1e-5, rtol=0)
    pooled = [visual._pool(tokens)[0] for tokens in tokens_after(visual, layers)]
    expected = torch.stack(pooled).mean(dim=0) @ visual.proj
    torch.testing.assert_close(targets[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("case", CASES.keys() - {PROJECTS_IN_POOL})
def test_patches_go_through_the_final_norm_and_projection(case: str, layers: int) -> None:
    hidden, visual = teacher(case, prior="uniform", layers=layers, space="hidden")
    projected, _ = teacher(case, prior="uniform", layers=layers)
    normed = [visual.ln_post(tokens) for tokens in tokens_after(visual, layers)]
    expected = torch.stack(normed).mean(dim=0)[:, 1:]
    assert (hidden.width, projected.width) == (32, 24)
    torch.testing.assert_close(hidden(pixels())[0][:, 1:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        projected(pixels())[0][:, 1:], expected @ visual.proj, atol=1e-5, rtol=0
    )


def test_cocas_patches_are_what_its_pool_gives_for_each_alone() -> None:
    given, visual = teacher(PROJECTS_IN_POOL)
    hidden, _ = teacher(PROJECTS_IN_POOL, space="hidden")
    targets, _ = given(pixels())
    tokens = tokens_after(visual, 1)[0]
    for patch in (0, 7, 15):
        alone = visual.ln_post(visual.attn_pool(tokens[:, 1 + patch : 2 + patch]))[:, 0]
        expected = alone @ visual.proj
        torch.testing.assert_close(targets[:, 1 + patch], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(hidden(pixels())[0][:, 1 + patch], alone, atol=1e-5, rtol=0)


def reference_cls_row(visual: Any) -> torch.Tensor:
    """The CLS row of the last block's softmax, computed in full."""
    block = visual.transformer.resblocks[-1]
    x_BNW = block.ln_1(tokens_after(visual, 2)[0])
    if isinstance(block.attn, torch.nn.MultiheadAttention):
        if not visual.transformer.batch_first:
            x_BNW = x_BNW.transpose(0, 1)
        weights_BNN = block.attn(x_BNW, x_BNW, x_BNW, need_weights=True)[1]
    else:
        q, k, _ = torch.nn.functional.linear(
            x_BNW, block.attn.in_proj_weight, block.attn.in_proj_bias
        ).chunk(3, dim=-1)
        q, k = (x.unflatten(-1, (2, 16)).transpose(1, 2) for x in (q, k))
        q, k = block.attn.ln_q(q), block.attn.ln_k(k)
        weights_BNN = (q @ k.mT * block.attn.scale).softmax(dim=-1).mean(dim=1)
    row: torch.Tensor = weights_BNN[:, 0, 1:]
    return row


@pytest.mark.parametrize("case", CASES)
def test_the_cls_prior_is_the_softmaxed_row(case: str) -> None:
    given, visual = teacher(case, prior="cls")
    _, prior = given(pixels())
    assert prior.shape == (3, 16)
    assert float(prior.std()) > 1e-3
    assert bool((prior.sum(dim=-1) < 1).all())
    torch.testing.assert_close(prior, reference_cls_row(visual), atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch_first", [True, False])
def test_both_layouts_of_the_tower(batch_first: bool) -> None:
    given, visual = native(), native()
    for tower in (given, visual):
        tower.transformer.batch_first = batch_first
        for block in tower.transformer.resblocks:
            block.attn.batch_first = batch_first
    targets, prior = Teacher(given, TeacherSpec(name="x"))(pixels())
    torch.testing.assert_close(targets[:, 0], embedding(visual, pixels()), atol=1e-5, rtol=0)
    torch.testing.assert_close(prior, reference_cls_row(visual), atol=1e-6, rtol=0)


def test_cocas_prior_is_the_row_of_the_query_that_is_the_images() -> None:
    given, visual = teacher(PROJECTS_IN_POOL)
    pool = visual.attn_pool
    x_BNW = pool.ln_k(tokens_after(visual, 1)[0])
    query = pool.ln_q(pool.query).expand(3, -1, -1)
    weights_BQN = pool.attn(query, x_BNW, x_BNW, need_weights=True)[1]
    assert given.prior == "pool"
    torch.testing.assert_close(given(pixels())[1], weights_BQN[:, 0, 1:], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("case", "prior", "pooling"),
    [("plain", "cls", "cls"), ("CLIPA", None, "average"), ("CoCa", "pool", "pool")],
)
def test_how_it_pools(case: str, prior: str | None, pooling: str) -> None:
    assert tower_of(native(**CASES[case]), "x").pooling == pooling
    if prior is None:
        with pytest.raises(ConfigError, match="choose --prior rollout or --prior uniform"):
            teacher(case)
    else:
        assert teacher(case)[0].prior == prior


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scaled_cosine_attn": True}, "has scaled cosine attention, which open_clip cannot run"),
        ({"pool_type": "none"}, "returns tokens that are not pooled into one"),
        (COCA | {"attentional_pool": "parallel"}, "returns tokens that are not pooled into one"),
        (COCA | {"pool_type": "avg"}, "pools by the mean of several attention queries"),
    ],
)
def test_forms_without_a_feature_of_a_patch_are_refused(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"^--teacher 'x' {problem}; choose another"):
        Teacher(native(**changes), TeacherSpec(name="x"))


def test_a_tower_may_be_taken_over_twice() -> None:
    visual = native(**CASES[PROJECTS_IN_POOL])
    first, second = (Teacher(visual, TeacherSpec(name="x")) for _ in range(2))
    assert first.identity() == second.identity()
    assert torch.equal(first(pixels())[0], second(pixels())[0])
