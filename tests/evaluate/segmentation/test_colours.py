"""Colours change by mmsegmentation's amounts, each change with probability one half."""

import colorsys
from typing import Any

import numpy as np
import pytest
import torch

from milan_pipeline.evaluate.segmentation import colours
from milan_pipeline.evaluate.segmentation.colours import distorted

DRAWS = 400
ORANGE = (150, 90, 60)  # hue 20 of 360 degrees, saturation 0.6: no change clips it


class Scripted:
    """Draws that do what a test says: `does` are the coins, the amounts lie at a share `at`."""

    def __init__(self, *does: str, at: float, last: bool = False) -> None:
        coins = [name in does for name in ("brightness", "contrast", "saturation", "hue")]
        self._coins, self._at = np.array([not coin for coin in [*coins, last]]) * 0.9, at

    def random(self, count: int) -> np.ndarray:
        assert count == 5
        return self._coins

    def uniform(self, least: float, most: float, count: int | None = None) -> object:
        value = least + self._at * (most - least)
        return value if count is None else np.full(count, value)


def constant(colour=ORANGE):
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 4, 4).contiguous()


def changed(*does, at, last=False, colour=ORANGE):
    """Return the one colour that a constant image gets."""
    draws: Any = Scripted(*does, at=at, last=last)
    view = distorted(constant(colour), draws)
    assert view.dtype == torch.uint8
    assert (view == view[:, :1, :1]).all()
    return np.array(view[:, 0, 0].tolist())


def hsv(colour):
    return np.array(colorsys.rgb_to_hsv(*np.array(colour) / 255))


def turn_of(after_hsv):
    """Return by how much of the circle a hue is past that of `ORANGE`."""
    return (after_hsv[0] - hsv(ORANGE)[0] + 0.5) % 1 - 0.5


def test_brightness_adds_up_to_32_of_255():
    assert changed("brightness", at=0).tolist() == [118, 58, 28]
    assert changed("brightness", at=1).tolist() == [182, 122, 92]
    assert changed("brightness", at=1, colour=(0, 128, 250)).tolist() == [32, 160, 255]
    assert changed("brightness", at=0, colour=(0, 128, 250)).tolist() == [0, 96, 218]


def test_contrast_multiplies_by_a_half_to_one_and_a_half():
    assert changed("contrast", at=0).tolist() == [75, 45, 30]
    assert changed("contrast", at=1).tolist() == [225, 135, 90]


@pytest.mark.parametrize(("at", "factor"), [(0, 0.5), (0.75, 1.25), (1, 1.5)])
def test_saturation_is_multiplied_and_hue_and_value_stay(at, factor):
    before, after = hsv(ORANGE), hsv(changed("saturation", at=at))
    assert after == pytest.approx(before * (1, factor, 1), abs=0.01)
    full = hsv(changed("saturation", at=at, colour=(200, 40, 20)))
    assert full[1] == pytest.approx(min(1, 0.9 * factor), abs=0.01)


@pytest.mark.parametrize("at", [0, 0.25, 1])
def test_hue_turns_by_up_to_a_tenth_of_the_circle(at):
    before, after = hsv(ORANGE), hsv(changed("hue", at=at))
    assert turn_of(after) == pytest.approx(-0.1 + 0.2 * at, abs=0.005)
    assert after[1:] == pytest.approx(before[1:], abs=0.01)


def test_greys_have_no_hue_and_no_saturation_to_change():
    for does in ("hue", "saturation"):
        for value in (0, 77, 255):
            assert changed(does, at=1, colour=(value,) * 3).tolist() == [value] * 3


def test_contrast_comes_right_after_brightness_or_last():
    # 1.5 times a bright colour is clipped, and its saturation with it, if contrast comes first.
    colour = (200, 100, 100)
    first = changed("contrast", "saturation", at=1, last=False, colour=colour)
    last = changed("contrast", "saturation", at=1, last=True, colour=colour)
    assert first.tolist() == [255, 98, 98]  # (255, 150, 150), of saturation 0.41, times 1.5
    assert last.tolist() == [255, 75, 75]  # (200, 50, 50) times 1.5
    assert changed("brightness", "contrast", at=1, last=True).tolist() == [255, 183, 138]


def test_each_change_comes_in_half_of_the_views_and_stays_within_its_bounds():
    draws = np.random.default_rng(0)
    found = {tuple(distorted(constant(), draws)[:, 0, 0].tolist()) for _ in range(DRAWS)}
    unchanged = sum(torch.equal(distorted(constant(), draws), constant()) for _ in range(DRAWS))
    assert unchanged == pytest.approx(DRAWS / 16, abs=3 * np.sqrt(DRAWS / 16))
    turned = [turn for turn in (turn_of(hsv(colour)) for colour in found) if abs(turn) > 0.005]
    assert 0.09 < max(turned) <= 0.105
    assert -0.105 <= min(turned) < -0.09
    values = [max(colour) for colour in found]
    assert min(values) >= (150 - 32) // 2
    assert max(values) > 1.4 * (150 + 20)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_amounts_are_drawn_evenly(name):
    """Of the views that one change alone has touched, its amount is as often low as high."""
    draws, low, high = np.random.default_rng(1), 0, 0
    measure = {
        "brightness": lambda after: after.mean() - np.mean(ORANGE),
        "contrast": lambda after: after.mean() - np.mean(ORANGE),
        "saturation": lambda after: hsv(after)[1] - 0.6,
        "hue": lambda after: turn_of(hsv(after)),
    }[name]

    class OneAlone:
        def random(self, count):
            return Scripted(name, at=0).random(count)

        def uniform(self, *bounds):
            return draws.uniform(*bounds)

    alone: Any = OneAlone()
    for _ in range(100):
        after = np.array(distorted(constant(), alone)[:, 0, 0].tolist())
        low, high = low + (measure(after) < 0), high + (measure(after) > 0)
    assert 35 <= low <= 65
    assert low + high >= 95


def test_the_bounds_are_those_of_the_published_configuration():
    assert colours.BRIGHTNESS * 255 == 32
    assert colours.HUE * 180 == 18
