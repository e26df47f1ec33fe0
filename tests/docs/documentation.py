"""The code blocks of README and docs/, each with what vouches for it.

A block of commands (`sh`) or `python` runs in a test unless an HTML comment right above it says
otherwise; any other block needs such a mark:

    <!-- not run: why -->                 a person has to believe it, and is told why
    <!-- quoted from: PATH -->            it stands there, but for indentation and "..." lines
    <!-- checked by: tests/test_x.py -->  that test reads it from the page
"""

import dataclasses
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
RUN = ("sh", "python")
MARKS = ("not run", "quoted from", "checked by")
BLOCK = re.compile(
    r"(?:^[ ]*<!--(?P<mark>(?:(?!-->).)*)-->[ ]*\n)?"
    r"^(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})(?P<language>[^\n]*)\n"
    r"(?P<text>.*?)^(?P=indent)(?P=fence)[ ]*$",
    flags=re.MULTILINE | re.DOTALL,
)
ELLIPSIS = "..."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where it is, what it says, its mark's kind and what follows the colon."""

    page: str
    line: int
    language: str
    text: str
    mark: str | None
    reason: str

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def is_directive(self) -> bool:
        """Whether it is no block of code but something that Sphinx puts there."""
        return self.language.startswith("{")

    @property
    def runs(self) -> bool:
        """Whether a test runs it as it stands."""
        return self.mark is None and self.language in RUN

    def commands(self) -> list[str]:
        """Return its commands, one a line, continued lines joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def blocks_of(text: str, page: str) -> list[Block]:
    """Find a page's blocks."""
    return [_block(match, text, page) for match in BLOCK.finditer(text)]


def _block(match: "re.Match[str]", text: str, page: str) -> Block:
    kind, _, reason = (match["mark"] or "").partition(":")
    words = " ".join(kind.split())
    return Block(
        page=page,
        line=text.count("\n", 0, match.start("fence")) + 1,
        language=match["language"].strip(),
        text=textwrap.dedent(match["text"]),
        mark=None if match["mark"] is None else words,
        reason=" ".join(reason.split()),
    )


def page_blocks(path: Path) -> list[Block]:
    """Return the blocks of a page of this repository."""
    return blocks_of(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))


def all_blocks() -> list[Block]:
    """Return the blocks of README and docs/."""
    return [block for path in PAGES for block in page_blocks(path)]


def problem_of(block: Block) -> str | None:
    """Say why nothing vouches for a block; None where something does."""
    if block.mark is not None and block.mark not in MARKS:
        return f"{block.place}: the mark {block.mark!r} is unknown"
    if block.mark is not None and not block.reason:
        return f"{block.place}: the mark {block.mark!r} gives no reason"
    if block.mark is None and not block.is_directive and block.language not in RUN:
        return f"{block.place}: nothing vouches for this block of {block.language or 'text'}"
    return None


def misquotation_of(block: Block, source: str) -> str | None:
    """Return the first piece of a quotation that its source does not have; None if it has all.

    Pieces are parted by lines of dots and must follow one another; indentation may differ.
    """
    start = 0
    lines = [line.strip() for line in source.splitlines()]
    for piece in _pieces(block.text):
        found = next(
            (at for at in range(start, len(lines)) if lines[at : at + len(piece)] == piece), None
        )
        if found is None:
            return "\n".join(piece)
        start = found + len(piece)
    return None


def _pieces(text: str) -> list[list[str]]:
    pieces: list[list[str]] = [[]]
    for line in text.strip("\n").splitlines():
        if line.strip() == ELLIPSIS:
            pieces.append([])
        else:
            pieces[-1].append(line.strip())
    return [piece for piece in pieces if piece]
