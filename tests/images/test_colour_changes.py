"""Changes of colours: drawn by their probabilities, and applied as written down in floats."""

import colorsys
import hashlib

import numpy as np
import pytest

from milan_pipeline.images.colour_changes import (
    KINDS,
    LUMA,
    ColourChange,
    changed_colours,
    draw_colours,
)

VIEW = np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
RECORDED = [
    ["dbfc571e47bc", "ed492b1bf26e"],
    ["c1001e52b2c4", "603e108afa64"],
    ["fbe67ebd3db7", "99201b5307e3"],
    ["e0344cd77b0a", "3dd58dd1227d"],
    ["b90c388b8af3", "54303c39cd62"],
    ["f70a84a37afd", "c03503f9b8a2"],
]
"""Hashes of the numbers drawn for some keys, and of the views that they give."""
DINO = {"jitter": 0.8, "grey": 0.2, "blur": 0.5, "solarise": 0.2}


def changed(view=VIEW, **numbers):
    return changed_colours(view, ColourChange(**numbers)).astype(float)


def test_no_change_changes_no_bit():
    assert changed_colours(VIEW, ColourChange()) is VIEW


def test_draws_are_those_of_seed_key_and_view_and_fit_float32():
    first = draw_colours(DINO, seed=0, key="k", view=1)
    assert first == draw_colours(DINO, seed=0, key="k", view=1)
    assert ColourChange(*np.array(first, np.float32).tolist()) == first
    assert draw_colours(DINO, seed=1, key="k", view=1) != first
    assert draw_colours(DINO, seed=0, key="l", view=1) != first


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_comes_as_often_as_its_probability_says(kind):
    drawn = [draw_colours({kind: 0.3}, seed=0, key=str(n), view=0) for n in range(2000)]
    share = np.mean([change != ColourChange() for change in drawn])
    assert 0.27 < share < 0.33


def test_jitter_and_blur_stay_within_their_bounds():
    drawn = np.array([draw_colours(DINO, seed=0, key=str(n), view=0) for n in range(3000)])
    low, high = drawn.min(0), drawn.max(0)
    np.testing.assert_allclose(low[:4], [0.6, 0.6, 0.8, -0.1], atol=0.01)
    np.testing.assert_allclose(high[:4], [1.4, 1.4, 1.2, 0.1], atol=0.01)
    sigma = drawn[:, 5][drawn[:, 5] > 0]
    assert 0.1 <= sigma.min() < 0.12
    assert 1.98 < sigma.max() <= 2.0


def test_brightness_contrast_and_saturation_are_their_formulas():
    grey = np.tensordot(LUMA, VIEW, 1)
    expected = {
        "brightness": 1.3 * VIEW,
        "contrast": 1.3 * VIEW - 0.3 * grey.mean(),
        "saturation": 1.3 * VIEW - 0.3 * grey,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(changed(**{name: 1.3}), values.clip(0, 255), atol=0.51)


def test_grey_is_the_same_in_all_channels():
    found = changed(grey=1.0)
    np.testing.assert_allclose(found, np.broadcast_to(np.tensordot(LUMA, VIEW, 1), found.shape),
                               atol=0.51)  # fmt: skip


def test_hue_turns_colours_and_leaves_grey_alone():
    grey = np.full((3, 4, 4), 90, np.uint8)
    assert (changed(grey, hue=0.1) == 90).all()
    red = np.array([200, 60, 60], np.uint8).reshape(3, 1, 1)
    there = changed(red, hue=0.08).ravel() / 255
    turned = colorsys.rgb_to_hsv(*there)[0]
    assert 0.02 < turned % 1 < 0.98
    back = changed(changed(red, hue=0.08).astype(np.uint8), hue=-0.08).ravel()
    np.testing.assert_allclose(back, [200, 60, 60], atol=2)


def test_blur_is_a_gaussian_whose_width_follows_the_view():
    view = np.zeros((3, 112, 112), np.uint8)
    view[:, :, 56:] = 200  # an edge: its blur is the Gaussian's integral
    found = changed(view, blur=4.0)[0, 50]
    at = np.arange(-8, 8)
    weights = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)  # 4 of 224ths are 2 pixels of 112
    weights /= weights.sum()
    expected = [200 * weights[np.arange(-6, 7) >= -k].sum() for k in at]
    np.testing.assert_allclose(found[56 + at], expected, atol=1)
    assert (changed(np.full((3, 9, 9), 77, np.uint8), blur=50.0) == 77).all()


def test_solarise_inverts_bright_values():
    np.testing.assert_array_equal(changed(solarise=1.0), np.where(VIEW < 128, VIEW, 255.0 - VIEW))


def test_colours_are_those_that_stores_have_been_made_with():
    """Recorded: the identity of targets does not say how colours are drawn and computed."""
    assert [_recorded(number) for number in range(len(RECORDED))] == RECORDED


def _recorded(number):
    change = draw_colours(dict.fromkeys(KINDS, 0.7), seed=number, key=f"k{number}", view=number)
    plain = (np.arange(3 * 64 * 64) * 7919 // 16 % 256).astype(np.uint8).reshape(3, 64, 64)
    view = changed_colours(plain, change)
    numbers = np.array(change, "<f4").tobytes()
    return [hashlib.sha256(each).hexdigest()[:12] for each in (numbers, view.tobytes())]
