"""Crop geometry: inside the image, keyed, and distributed as torchvision's."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import RandomResizedCrop

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.views import Box, ViewPolicy, center_crop, policy_of, random_resized_crop

SIZES = st.integers(1, 3000) | st.integers(1, 8)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=300)


def assert_inside(box, height, width):
    assert all(type(value) is int for value in (box.top, box.left, box.height, box.width))
    assert type(box.flip) is bool
    assert box.height >= 1
    assert box.width >= 1
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


@PROPERTY
@given(height=SIZES, width=SIZES, seed=st.integers(0, 2**40), key=st.text(), view=st.integers(0, 9))
def test_box_is_inside_and_repeatable(height, width, seed, key, view):
    box = random_resized_crop(height, width, seed=seed, key=key, view=view)
    assert_inside(box, height, width)
    assert box == random_resized_crop(height, width, seed=seed, key=key, view=view)


@PROPERTY
@given(height=SIZES, width=SIZES)
def test_center_is_the_largest_central_square(height, width):
    box = center_crop(height, width)
    assert_inside(box, height, width)
    assert box.height == box.width == min(height, width)
    assert abs(box.top - (height - box.height - box.top)) <= 1
    assert abs(box.left - (width - box.width - box.left)) <= 1
    assert not box.flip


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 2), (10, 4000), (4000, 10)])
def test_extreme_shapes(size):
    for key in map(str, range(30)):
        assert_inside(random_resized_crop(*size, seed=0, key=key, view=0), *size)


def test_fallback_is_torchvisions_central_crop():
    assert random_resized_crop(400, 10, seed=0, key="k", view=0, flip_probability=0) == Box(
        193, 0, 13, 10, flip=False
    )
    assert random_resized_crop(10, 400, seed=0, key="k", view=0, flip_probability=1) == Box(
        0, 193, 10, 13, flip=True
    )


def test_every_part_of_the_key_matters():
    def draw(seed=0, key="a", view=0):
        return random_resized_crop(375, 500, seed=seed, key=key, view=view)

    assert len({draw(), draw(seed=1), draw(key="b"), draw(view=1)}) == 4


def test_known_boxes_stay_as_they_are():
    """Stored targets belong to these boxes: a change here makes every store useless."""
    boxes = [random_resized_crop(375, 500, seed=0, key="000001", view=v) for v in range(2)]
    assert boxes == [Box(137, 28, 190, 230, flip=False), Box(49, 34, 196, 253, flip=True)]


def test_distribution_matches_torchvision():
    count, height, width = 3000, 375, 500
    ours = [random_resized_crop(height, width, seed=1, key=str(i), view=0) for i in range(count)]
    torch.manual_seed(0)
    transform = RandomResizedCrop(224, scale=(0.2, 1.0))
    image = torch.zeros(3, height, width)
    theirs = [transform.make_params([image]) for _ in range(count)]
    for name in ("top", "left", "height", "width"):
        a = np.sort([getattr(box, name) for box in ours])
        b = np.sort([params[name] for params in theirs])
        assert np.abs(a - b).mean() < 0.02 * height  # the earth mover's distance
    assert abs(np.mean([box.flip for box in ours]) - 0.5) < 4 * 0.5 / math.sqrt(count)


def test_area_is_uniform_where_every_crop_fits():
    areas = [
        (box := random_resized_crop(900, 900, seed=3, key=str(i), view=0, scale=(0.2, 0.5))).height
        * box.width
        / 900**2
        for i in range(2000)
    ]
    assert 0.199 < min(areas) < 0.21
    assert 0.49 < max(areas) < 0.501
    assert abs(np.mean(areas) - 0.35) < 0.01


def test_policy_dispatches():
    policy = ViewPolicy(seed=3, scale=(0.5, 1.0))
    assert policy.box(40, 60, "k", 2) == random_resized_crop(
        40, 60, seed=3, key="k", view=2, scale=(0.5, 1.0)
    )
    assert ViewPolicy(name="center").box(40, 60, "k", 2) == Box(0, 10, 40, 40, flip=False)


def test_identity_holds_what_changes_the_views_and_nothing_else():
    assert ViewPolicy(seed=3).as_dict() == {
        "name": "random-resized-crop",
        "seed": 3,
        "scale": [0.2, 1.0],
    }
    assert ViewPolicy(name="center", seed=3).as_dict() == {"name": "center"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "five-crop"}, "'five-crop' is unknown; choose one of random-resized-crop"),
        ({"scale": (0.0, 1.0)}, r"within \(0, 1\]"),
        ({"scale": (0.9, 0.5)}, r"within \(0, 1\]"),
        ({"scale": (0.2, float("nan"))}, r"within \(0, 1\]"),
    ],
)
def test_wrong_policies_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        ViewPolicy(**options)


@pytest.mark.parametrize(
    "policy", [ViewPolicy(), ViewPolicy(seed=3, scale=(0.5, 0.75)), ViewPolicy(name="center")]
)
def test_a_policy_is_rebuilt_from_an_identity(policy: ViewPolicy) -> None:
    assert policy_of(json.loads(json.dumps(policy.as_dict()))) == policy
    with pytest.raises(ConfigError, match="cut with later, which this version does not know"):
        policy_of(policy.as_dict() | {"later": 1})
