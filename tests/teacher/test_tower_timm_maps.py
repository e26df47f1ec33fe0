"""Towers that end in a feature map: its positions are the tokens, row-major."""

from typing import Any

import pytest
import torch
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import MAP_TRUNKS, embedding, normalised, pixels, timm_tower

SIZE = 64


def teacher(family: str, **asked: Any) -> tuple[Teacher, Any]:
    visual = timm_tower(family)
    return Teacher(visual, TeacherSpec(name="x", prior="uniform", **asked)), visual


@pytest.mark.parametrize("family", MAP_TRUNKS)
def test_the_first_token_is_the_image_embedding(family: str) -> None:
    given, visual = teacher(family)
    targets, prior = given(pixels(SIZE))
    assert (given.grid, given.width) == ((2, 2), 24)
    assert torch.equal(prior, torch.full((3, 4), 0.25))
    torch.testing.assert_close(targets[:, 0], embedding(visual, pixels(SIZE)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("space", ["projected", "hidden"])
@pytest.mark.parametrize("family", MAP_TRUNKS)
def test_a_position_goes_through_the_head_alone(family: str, space: str) -> None:
    given, visual = teacher(family, space=space)
    targets, _ = given(pixels(SIZE))
    trunk = visual.trunk
    seen = trunk.forward_features(normalised(pixels(SIZE)))
    channels_last = family == "swin"
    for row, column in ((0, 0), (0, 1), (1, 0)):
        rows, columns = slice(row, row + 1), slice(column, column + 1)
        alone = seen[:, rows, columns] if channels_last else seen[:, :, rows, columns]
        expected = trunk.forward_head(alone, pre_logits=space == "hidden")
        if space == "projected":
            expected = visual.head(expected)
        found = targets[:, 1 + 2 * row + column]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prior", ["auto", "cls", "pool", "rollout"])
def test_they_have_no_attention_to_take_a_prior_from(prior: str) -> None:
    with pytest.raises(ConfigError, match=r"choose .*uniform$"):
        Teacher(timm_tower("convnext"), TeacherSpec(name="x", prior=prior))


def test_they_have_one_layer() -> None:
    with pytest.raises(ConfigError, match="--layers 2 is more than --teacher 'x' has"):
        teacher("convnext", layers=2)


def test_a_head_that_pools_by_itself_is_refused() -> None:
    visual = timm_tower("resnet")
    visual.head.pool = nn.Identity()
    with pytest.raises(ConfigError, match="gives neither patches nor a feature map"):
        Teacher(visual, TeacherSpec(name="x"))
