"""A browser, and the pages that it opens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium
from tests.support.cli import run_cli
from tests.support.pretrain import pretrain
from tests.support.stores import MadeStore, make_store

IMAGES = 10_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    browser = Chromium()
    yield browser
    browser.driver.quit()


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A store of 10,000 images with the grid of a ViT-B/16, and narrow targets."""
    key = ("a-folder-whose-name-has-no-end/" * 3 + "{:06d}").format
    return make_store(tmp_path_factory.mktemp("large"), images=IMAGES, width=32, key=key)


@pytest.fixture(scope="session")
def pages(
    large: MadeStore,
    image_shards: Path,
    target_shards: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A page of each kind, by name."""
    folder = tmp_path_factory.mktemp("pages")
    for name, more in (("one", ()), ("two", ("--masking", "random"))):
        pretrain(image_shards, target_shards, folder / name, "--epochs", 3, *more)
    pixels, targets = ("--images", image_shards), ("--targets", target_shards)
    commands = {
        "store": (large.store, "--images", large.images),
        "full": (large.store, "--images", large.images, "--gallery", 150),
        "shards": (target_shards,),
        "images": (large.images,),
        "run": (folder / "one", *pixels, *targets),
        "runs": (folder / "one", folder / "two", *pixels, *targets),
    }
    for name, words in commands.items():
        run_cli("inspect", *words, "--html", folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in commands}
