"""The README is short, and it and the pages name all that there is; test_stories.py runs it."""

import dataclasses
import re
import tomllib

from milan_pipeline.pretraining.defaults import MILANS
from milan_pipeline.stages.pretrain.command import Pretrain
from tests.docs.documentation import DOCS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STAGES = tuple(PROJECT["entry-points"]["milan_pipeline.stages"])
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 130


def first_cells(text: str) -> set[str]:
    """What the rows of a page's tables begin with, where that is code."""
    return set(re.findall(r"^\| `([\w-]+)` \|", text, flags=re.MULTILINE))


def test_it_can_be_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_every_stage_is_in_the_table_of_commands() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`([\w-]+)`\]", page, flags=re.MULTILINE)) == set(STAGES)


def test_every_page_is_in_it() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", README))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


def test_every_benchmark_is_on_its_page() -> None:
    sources = {path.stem: path.read_text("utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert first_cells(page) >= {name for name, code in sources.items() if "__main__" in code}


def test_every_choice_of_the_method_is_on_its_page() -> None:
    page = (DOCS / "method.md").read_text(encoding="utf-8")
    options = {field.name: field for field in dataclasses.fields(Pretrain)}
    for name in ("loss", "target_norm", "supervise", "masking", "decoder"):
        row = re.search(rf"^\| `--{name.replace('_', '-')}` \|(.*)$", page, flags=re.MULTILINE)
        assert row is not None
        default, *others = re.findall(r"`([\w-]+)`", row[1])
        assert default == MILANS[name]
        assert {default, *others} == set(options[name].metadata["choices"])


def test_extras_that_are_named_exist() -> None:
    pages = [README, *(page.read_text("utf-8") for page in DOCS.glob("*.md"))]
    extras = {extra for page in pages for extra in re.findall(r"'\.\[(\w+)\]'", page)}
    assert extras
    assert extras <= PROJECT["optional-dependencies"].keys()
