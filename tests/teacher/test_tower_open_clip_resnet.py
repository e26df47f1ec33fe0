"""CLIP's own ResNets: pooled by attention, whose query is the mean of the map."""

import pytest
import torch
from torch.nn import functional as F

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import embedding, native, normalised, pixels

RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 64}


def test_the_first_token_is_the_image_embedding_and_patches_are_values() -> None:
    visual = native(**RESNET)
    given = Teacher(visual, TeacherSpec(name="x"))
    targets, _ = given(pixels(64))
    assert (given.grid, given.width, given.prior) == ((2, 2), 24, "pool")
    torch.testing.assert_close(targets[:, 0], embedding(visual, pixels(64)), atol=1e-5, rtol=0)
    seen = visual.forward_intermediates(normalised(pixels(64)))["image_intermediates"][-1]
    pool = visual.attnpool
    for patch, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        token = seen[:, :, row, column] + pool.positional_embedding[1 + patch]
        expected = pool.c_proj(pool.v_proj(token))
        torch.testing.assert_close(targets[:, 1 + patch], expected, atol=1e-5, rtol=0)


def test_the_prior_is_the_row_of_the_mean() -> None:
    visual = native(**RESNET)
    _, prior = Teacher(visual, TeacherSpec(name="x", prior="pool"))(pixels(64))
    pool = visual.attnpool
    seen = visual.forward_intermediates(normalised(pixels(64)))["image_intermediates"][-1]
    x_NBC = seen.flatten(2).permute(2, 0, 1)
    x_NBC = torch.cat([x_NBC.mean(dim=0, keepdim=True), x_NBC])
    x_NBC = x_NBC + pool.positional_embedding[:, None]
    _, weights_BNN = F.multi_head_attention_forward(
        x_NBC, x_NBC, x_NBC, x_NBC.shape[-1], pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight, out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True, training=False,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    assert weights_BNN is not None
    torch.testing.assert_close(prior, weights_BNN[:, 0, 1:], atol=1e-6, rtol=0)


def test_what_it_has_not_is_refused() -> None:
    visual = native(**RESNET)
    with pytest.raises(ConfigError, match=r"--space hidden is not to be had .* choose projected$"):
        Teacher(visual, TeacherSpec(name="x", space="hidden"))
    with pytest.raises(ConfigError, match=r"choose one of pool, uniform$"):
        Teacher(visual, TeacherSpec(name="x", prior="cls"))
