"""The commands and snippets of each page run in the order that they stand in, in one folder."""

from pathlib import Path
from typing import Any

import pytest

from tests.docs.documentation import DOCS, ROOT, Block, page_blocks
from tests.docs.stand_ins import run_command, write_world

FIRST = DOCS / "own-images.md"
# These take for given what the first page has made; SLOW, only the world.
AFTER_FIRST = ("python.md", "views-and-codecs.md", "evaluation.md")
SLOW = ("imagenet.md", "targets.md", "without-network.md", "README.md")
OTHERS = ("rerunning.md",)  # tests/docs/test_rerunning.py tells its two stories


@pytest.fixture(scope="module")
def first_results(
    tiny_clip: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder in which the first fifteen minutes were gone through."""
    folder = tmp_path_factory.mktemp("first")
    write_world(folder, pictures, tiny_clip)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tell(FIRST, tiny_clip)
    return folder


def tell(page: Path, tiny_clip: Path) -> None:
    """Run a page's blocks in order; snippets share one namespace, as in one session."""
    names: dict[str, Any] = {}
    for block in page_blocks(page):
        if block.runs and block.language == "sh":
            for command in block.commands():
                run_command(command, tiny_clip)
        elif block.runs:
            exec(compile(block.text, block.place, "exec"), names)  # noqa: S102 - our own pages


def runnable(page: Path) -> list[Block]:
    return [block for block in page_blocks(page) if block.runs]


def test_every_page_with_something_to_run_is_told() -> None:
    told = {FIRST.name, *AFTER_FIRST, *SLOW, *OTHERS}
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    assert {page.name for page in pages if runnable(page)} <= told
    assert told <= {page.name for page in pages}


@pytest.mark.slow
def test_the_first_fifteen_minutes(first_results: Path) -> None:
    assert (first_results / "runs/first/encoder.safetensors").exists()
    assert (first_results / "runs/first/probe/scores.json").exists()
    assert (first_results / "runs/clip-probe/scores.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", AFTER_FIRST)
def test_what_follows_runs_on_the_results(
    first_results: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.chdir(first_results)
    tell(DOCS / page, tiny_clip)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_a_page_runs(
    tiny_clip: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path, pictures, tiny_clip)
    tell(ROOT / page if page == "README.md" else DOCS / page, tiny_clip)
