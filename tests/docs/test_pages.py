"""README and docs/: something vouches for each block of code; options, links, commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from torch.distributed.run import get_args_parser

from docs.command_reference import PAGE, reference, whole_page
from docs.draw_pipeline import PICTURE, picture
from docs.stage_stubs import STUB, whole_stub
from milan_pipeline.cli.commands import GENERAL, HELP_OPTIONS, StageCommand
from milan_pipeline.cli.main import group
from tests.docs.documentation import (
    DOCS,
    PAGES,
    ROOT,
    all_blocks,
    blocks_of,
    misquotation_of,
    problem_of,
)
from workflows.study.__main__ import parser_of_study

MARKED = """
<!-- {mark} -->
```{language}
b = 2
...
d = 4
```
"""
FETCHED = re.compile(r'<(?:script|img|link)[^>]*(?:src|href)="https?:')
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def parsed(mark: str, language: str = "sh"):
    (block,) = blocks_of(MARKED.format(mark=mark, language=language), "page.md")
    return block


def test_something_vouches_for_every_block() -> None:
    blocks = all_blocks()
    assert len(blocks) > 20
    assert [problem for block in blocks if (problem := problem_of(block))] == []


@pytest.mark.parametrize(
    ("mark", "language", "problem"),
    [
        ("not run: needs a cluster", "sh", None),
        ("quoted from: a.py", "python", None),
        ("checked by: tests/test_x.py", "json", None),
        ("not run:", "sh", "gives no reason"),
        ("not run", "sh", "gives no reason"),
        ("believe me: yes", "sh", "is unknown"),
    ],
)
def test_a_mark_needs_a_known_word_and_a_reason(
    mark: str, language: str, problem: str | None
) -> None:
    found = problem_of(parsed(mark, language))
    assert (found is None) if problem is None else (problem in (found or ""))


def test_what_is_unmarked_runs_or_fails() -> None:
    shown = {
        language: blocks_of(f"text\n```{language}\nx\n```\n", "page.md")[0]
        for language in ("sh", "python", "json", "", "{toctree}")
    }
    assert {name for name, block in shown.items() if block.runs} == {"sh", "python"}
    assert {name for name, block in shown.items() if problem_of(block)} == {"json", ""}
    assert shown["sh"].place == "page.md:2"


def test_a_quotation_is_compared_piece_by_piece_in_order() -> None:
    block = parsed("quoted from: a.py", "python")
    assert misquotation_of(block, "a = 1\n  b = 2\nc = 3\n    d = 4\n") is None
    assert misquotation_of(block, "d = 4\nb = 2\n") == "d = 4"
    assert misquotation_of(block, "b = 3\nd = 4\n") == "b = 2"


def test_quotations_are_as_their_sources_have_them() -> None:
    quotations = [block for block in all_blocks() if block.mark == "quoted from"]
    assert quotations
    for block in quotations:
        source = (ROOT / block.reason).read_text(encoding="utf-8")
        assert misquotation_of(block, source) is None, block.place


def test_what_another_test_checks_it_reads() -> None:
    for block in all_blocks():
        if block.mark == "checked by":
            test = (ROOT / block.reason).read_text(encoding="utf-8")
            assert Path(block.page).name in test, block.place


def test_links_lead_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in LINK.findall(page.read_text("utf-8"))]
    assert links
    missing = [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]
    assert missing == []


def test_links_into_a_page_lead_to_its_headings() -> None:
    links = re.findall(r"\]\((docs/[\w-]+\.md)#([\w-]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert links
    for page, anchor in links:
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
        assert anchor in anchors, page


def test_options_and_make_targets_that_are_named_exist() -> None:
    context = click.Context(group, **HELP_OPTIONS)
    commands = [group.get_command(context, name) for name in group.list_commands(context)]
    known = set(re.findall(r"--[a-z][a-z-]+", get_args_parser().format_help()))
    known |= set(re.findall(r"--[a-z][a-z-]+", parser_of_study().format_help()))
    known |= {"--workflow-profile"}  # Snakemake's
    for script in ("scenes", "train_clip", "train_segmenter"):
        text = (ROOT / f"workflows/demo/{script}.py").read_text("utf-8")
        known |= set(re.findall(r'"(--[a-z][a-z-]+)', text))
    for command in commands:
        assert command is not None
        for parameter in command.get_params(context):
            known |= {*parameter.opts, *parameter.secondary_opts}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        # The reference of commands is made of them, and names options of other programs.
        text = page.read_text(encoding="utf-8") if page != PAGE else ""
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known == set(), page.name
        assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets, page.name


def test_the_command_reference_has_every_command_and_option() -> None:
    """Those of all commands once, in its first section."""
    first, *sections = reference(group).split("\n## ")
    stages = {section.partition("\n")[0]: section for section in sections}
    context = click.Context(group, **HELP_OPTIONS)
    assert list(stages) == group.list_commands(context)
    for name, section in stages.items():
        command = group.get_command(context, name)
        assert isinstance(command, StageCommand)
        example = command.example or "no example"
        assert all(line.strip() in section for line in example.splitlines())
        for title, options in command.option_groups().items():
            place = first if title == GENERAL else section
            assert [option for option in options if f"`{option.opts[0]}" not in place] == []


def test_what_is_made_of_the_code_is_as_the_code_says() -> None:
    """docs/commands.md, docs/pipeline.svg and a stub; `make reference` writes them."""
    assert PAGE.read_text(encoding="utf-8") == whole_page(), "run `make reference`"
    assert PICTURE.read_text(encoding="utf-8") == picture(), "run `make reference`"
    assert STUB.read_text(encoding="utf-8") == whole_stub(), "run `make reference`"


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    site, trees = str(tmp_path / "site"), str(tmp_path / "trees")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", trees]
    done = subprocess.run([*build, str(DOCS), site], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.stem: path.read_text("utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert pages.keys() >= {path.stem for path in DOCS.glob("*.md")}
    assert [name for name, text in pages.items() if FETCHED.search(text)] == []
    assert "<math" in pages["method"]
