"""Every page in a browser, from disk: silent, alone, narrow enough, readable in both schemes."""

import itertools
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium

pytestmark = pytest.mark.browser

KINDS = ("store", "shards", "images", "run", "runs")
WIDTHS = {"phone": 390, "desktop": 1280}
SHOWN = list(itertools.product(KINDS, WIDTHS, ("light", "dark")))
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
MOST_BYTES = 8_000_000


@pytest.mark.parametrize("shown", SHOWN, ids="-".join)
def test_a_page_opens(
    shown: tuple[str, str, str], pages: dict[str, Path], chromium: Chromium, tmp_path: Path
) -> None:
    kind, size, scheme = shown
    chromium.open(pages[kind], width=WIDTHS[size], scheme=scheme)
    assert chromium.asked_for() == [pages[kind].as_uri()]
    assert chromium.overflow() <= 0
    contrasts = chromium.contrasts()
    assert len(contrasts) > 20
    assert min(contrasts) >= (LEAST_CONTRAST, "")
    background = chromium.run("return getComputedStyle(document.body).backgroundColor")
    assert (int(background[4:].split(",")[0]) < 60) == (scheme == "dark")
    broken = "return [...document.images].filter((i) => i.src && !i.naturalWidth).length"
    assert chromium.run(broken) == 0
    chromium.screenshot(tmp_path / f"{kind}-{size}-{scheme}.png", WIDTHS[size])
    assert chromium.logged() == []


@pytest.mark.parametrize("kind", ["store", "full"])
def test_a_page_of_many_images_is_small(kind: str, pages: dict[str, Path]) -> None:
    assert 100_000 < pages[kind].stat().st_size < MOST_BYTES


def test_a_full_gallery_opens(pages: dict[str, Path], chromium: Chromium) -> None:
    chromium.open(pages["full"])
    assert len(chromium.all(".thumb")) == 150
    assert len(chromium.all("#nearest li")) == 8
    assert chromium.logged() == []
