"""The gallery: patches are picked by pointer and by keys, and what is shown as nearest is."""

from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from milan_pipeline.codecs.spectrum import directions
from milan_pipeline.report.target_page import SAMPLE, some_of
from milan_pipeline.report.target_rows import read_target_rows
from tests.browser.chromium import Chromium
from tests.support.stores import MadeStore

pytestmark = pytest.mark.browser

SIDE = 14
FOCUSED = """
const at = document.activeElement;
return at.dataset.show || at.className || at.parentElement.id;
"""
PICKED = "#patch-grid button[aria-pressed='true']"


@pytest.fixture
def page(pages: dict[str, Path], chromium: Chromium) -> Chromium:
    chromium.open(pages["store"])
    return chromium


def picked(page: Chromium) -> int:
    """Return the patch that is picked, of which there is always one."""
    (button,) = page.all(PICKED)
    return int(
        page.run("return [...arguments[0].parentElement.children].indexOf(arguments[0])", button)
    )


def nearest(page: Chromium) -> list[tuple[float, str]]:
    """Return the cosine and the whole key of each nearest patch; a shorter key is shown."""
    cosines = [float(item.text.splitlines()[0]) for item in page.all("#nearest li")]
    keys = [str(span.get_attribute("title")) for span in page.all("#nearest .near-key")]
    return list(zip(cosines, keys, strict=True))


def press(page: Chromium, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


def test_a_click_picks_a_patch_and_what_is_nearest(page: Chromium, large: MadeStore) -> None:
    page.all("#patch-grid button")[5 * SIDE + 3].click()
    assert picked(page) == 5 * SIDE + 3
    assert "row 6, column 4" in page.find("#patch-said").text
    rows = some_of(read_target_rows(large.store, SAMPLE, 0), 24, 0)
    direction_nLD = directions(rows.tokens_nND[:, 1:])
    cosine_n = (direction_nLD @ direction_nLD[0, 5 * SIDE + 3]).amax(dim=1).numpy()
    expected = np.sort(cosine_n[1:])[::-1][:8]
    shown = nearest(page)
    assert [number for number, _ in shown] == pytest.approx(expected.tolist(), abs=0.02)
    place = {key: number for number, key in enumerate(rows.key)}
    assert [cosine_n[place[key]] for _, key in shown] == pytest.approx(expected.tolist(), abs=0.02)


def test_a_nearest_patch_leads_to_its_view(page: Chromium) -> None:
    _, key = nearest(page)[2]
    page.all("#nearest button")[2].click()
    assert page.find("[data-tells='key']").text == key
    assert page.find(".thumb[aria-pressed='true']").get_attribute("data-key") == key
    assert key in page.find("#patch-said").text


def test_arrow_keys_move_the_focused_patch(page: Chromium) -> None:
    start = 6 * SIDE + 6
    page.all("#patch-grid button")[start].click()
    steps = {
        Keys.ARROW_RIGHT: start + 1,
        Keys.ARROW_DOWN: start + 1 + SIDE,
        Keys.ARROW_LEFT: start + SIDE,
        Keys.ARROW_UP: start,
        Keys.HOME: 6 * SIDE,
        Keys.END: 7 * SIDE - 1,
    }
    before = nearest(page)
    for key, patch in steps.items():
        press(page, key)
        assert picked(page) == patch
        assert page.driver.switch_to.active_element == page.find(PICKED)
    assert nearest(page) != before
    outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press(page, Keys.END, Keys.ARROW_RIGHT)  # the edge holds
    assert picked(page) == 7 * SIDE - 1


def test_everything_is_reached_by_tab_alone(page: Chromium) -> None:
    stops = len(page.all("a[href], .near, [data-show], .thumb")) + 1  # the patches are one stop
    seen = []
    for _ in range(stops):
        press(page, Keys.TAB)
        seen.append(page.run(FOCUSED))
    assert seen.count("patch-grid") == 1
    layers = [
        "plain",
        "prior",
        "mask-0.4",
        "mask-0.6",
        "mask-0.75",
        "mask-0.9",
        "colours",
        "similar",
    ]
    assert [name for name in seen if name in layers] == layers
    assert (seen.count("near"), seen.count("thumb")) == (8, 24)


def test_layers_are_switched_by_key(page: Chromium) -> None:
    for layer in ("prior", "mask-0.9", "colours", "similar", "plain"):
        page.run("arguments[0].focus()", page.find(f"[data-show='{layer}']"))
        press(page, Keys.ENTER)
        assert page.find("[data-show][aria-pressed='true']").get_attribute("data-show") == layer
        shown = page.run(
            "return [...document.querySelector('.thumb .stack').children]"
            ".filter((e) => e.matches('img, canvas') && getComputedStyle(e).display !== 'none')"
            ".map((e) => e.dataset.layer || e.tagName)"
        )
        top = {"similar": ["CANVAS"], "plain": []}.get(layer, [layer])
        assert shown == ["IMG", *top]
        assert page.find("#scale").is_displayed() == (layer in ("prior", "similar"))


def test_similarity_is_brightest_at_the_picked_patch(page: Chromium) -> None:
    page.all("#patch-grid button")[SIDE + 2].click()
    red = page.run(
        "const c = document.querySelector('#stage-stack canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return [...d].filter((_, i) => i % 4 < 3)"
    )
    pixels = np.array(red).reshape(-1, 3)
    assert pixels[SIDE + 2].tolist() == [253, 231, 37]
    assert len(np.unique(pixels, axis=0)) > 10


def test_a_thumbnail_picks_where_it_is_clicked(page: Chromium) -> None:
    thumb = page.all(".thumb")[4]
    page.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", thumb)
    stack = thumb.find_element("css selector", ".stack")
    size = stack.size
    right, down = size["width"] * (10.5 / SIDE - 0.5), size["height"] * (3.5 / SIDE - 0.5)
    ActionChains(page.driver).move_to_element_with_offset(
        stack, int(right), int(down)
    ).click().perform()
    assert thumb.get_attribute("aria-pressed") == "true"
    assert picked(page) == 3 * SIDE + 10
    page.run("arguments[0].focus()", page.all(".thumb")[7])
    press(page, Keys.ENTER)
    assert picked(page) == int(page.all(".thumb")[7].get_attribute("data-best") or -1)
