"""docs/troubleshooting.md: the code has every message that it quotes, values aside."""

import ast
import re
from collections.abc import Iterator

from tests.docs.documentation import DOCS, ROOT

VALUE = "…"
PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
FIELD = re.compile(r"%[\d.]*[a-z]|\{[^{}]*\}")


def quoted() -> list[str]:
    """The messages: the first cells of the page's tables."""
    return re.findall(r"^\| `(.+?)` \|", PAGE, flags=re.MULTILINE)


def templates() -> Iterator[str]:
    """Every text of the code, with "…" in place of values that are put into it."""
    for folder in ("milan_pipeline", "stages"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else VALUE for p in node.values]
                    yield "".join(map(str, parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield FIELD.sub(VALUE, node.value)


def is_in_code(message: str, texts: str) -> bool:
    """Whether one of the texts, each in a line, has the message."""
    parts = message.split(VALUE)
    rest = re.compile(".*".join(map(re.escape, parts)))
    known = max(parts, key=len)  # which is found a hundred times as fast as the pattern
    return any(rest.search(text) for text in texts.splitlines() if known in text)


def test_every_message_is_one_of_ours() -> None:
    texts = "\n".join(" ".join(text.split()) for text in templates())
    assert len(quoted()) > 30
    assert [message for message in quoted() if not is_in_code(message, texts)] == []


def test_a_message_that_has_changed_would_be_seen() -> None:
    assert is_in_code("--batch-size … is odd", "--lanes …\n--batch-size … is odd; give more")
    assert not is_in_code("--lanes … is odd", "--lanes …\n--batch-size … is odd; give more")
