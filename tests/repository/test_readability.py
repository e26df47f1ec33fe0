"""README, docs/ and what `--help` says can be read at first sight: `make lint` runs this.

docs/commands.md has every text of `--help`, so that it stands for them.
"""

import pytest
from proselint.checks import __register__ as CHECKS
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

from tests.docs.documentation import DOCS, PAGES, ROOT
from tests.repository.prose import paragraphs_of, reading_grade, sentences_of, words_of

MOST_WORDS = 30
MOST_SCHOOL_YEARS = 8.0
TEXTS = {path.name: path.read_text("utf-8") for path in [*PAGES, ROOT / "CONTRIBUTING.md"]}
# Typography is settled by other rules: ASCII quotes, and "..." where lines are left out. The check
# of dates takes any number after "from" for a year.
LEFT_OUT = {"typography": False, "dates_times": False}
CONFIG = {**DEFAULT, "checks": {**DEFAULT["checks"], **LEFT_OUT}}
CheckRegistry().register_many(CHECKS)

HARD = """
The page of the last one says how near the targets that were packed are to those of the store.

- A fault is *detected* where those who read it, whatever they do, be it in order or at any place,
  by index or whole, give an error that names the file, the shard or the unit, and is in one line.
"""


@pytest.mark.parametrize("page", TEXTS)
def test_no_sentence_is_too_long(page: str) -> None:
    long = [text for text in sentences_of(TEXTS[page]) if len(words_of(text)) > MOST_WORDS]
    assert long == []


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_needs_few_years_of_school(page: str) -> None:
    assert reading_grade(TEXTS[page]) <= MOST_SCHOOL_YEARS


@pytest.mark.parametrize("page", TEXTS)
def test_a_linter_of_english_has_nothing_to_say(page: str) -> None:
    prose = "\n\n---\n\n".join(paragraphs_of(TEXTS[page]))
    found = [hit.check_result for hit in LintFile(page, prose).lint(CONFIG)]
    around = [prose[max(0, hit.span[0] - 40) : hit.span[1] + 40] for hit in found]
    assert [f"{hit.message} … {text}" for hit, text in zip(found, around, strict=True)] == []


def test_hard_text_would_be_seen() -> None:
    lengths = [len(words_of(sentence)) for sentence in sentences_of(HARD)]
    assert [length > MOST_WORDS for length in lengths] == [False, True]
    assert reading_grade("Multidimensional considerations predominate.") > 20
    assert LintFile("x", "It is very unique.").lint(CONFIG)


def test_code_links_and_tables_are_no_prose() -> None:
    table, block = "| one two | three four |\n|---|---|", "```sh\nx y z\n```"
    page = f"Run `a b c` ([see](x.md)). It helps.\n\n{table}\n\n{block}\n"
    assert sentences_of(page) == ["Run Code (see).", "It helps.", "one two", "three four"]


def test_every_page_is_looked_at() -> None:
    assert {path.name for path in DOCS.glob("*.md")} <= TEXTS.keys()
