"""The prose of a Markdown page: its sentences, without code, equations, links and comments."""

import re

from tests.docs.documentation import BLOCK

# Each is replaced, in this order, by what a reader's eye takes in its place.
REPLACED = (
    (r"<!--.*?-->", ""),
    (r"\$\$.*?\$\$", ""),
    (r"^\(\w+\)=$", ""),  # a label of Sphinx
    (r"(?<!\\)\$[^$\n]+\$", "X"),
    (r"`[^`]+`", "Code"),
    (r"!?\[([^\]]*)\]\([^)]*\)", r"\1"),
    (r"https?://\S+", "Link"),
    (r"[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}", ""),
    (r"\\(?=\W)", ""),
)
ITEM = re.compile(r"\s*(?:[-*]|\d+\.)\s+")
END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<=[.!?])[)\"]?\s+")


def paragraphs_of(page: str) -> list[str]:
    """Return a page's paragraphs, list items and cells of tables, each in one line."""
    text = BLOCK.sub("\n", page)
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL | re.MULTILINE)
    paragraphs: list[str] = [""]
    for line in text.splitlines():
        if line.startswith("|"):
            paragraphs += [*line.strip("|").split("|"), ""]
        elif line.startswith("#") or not line.strip():
            paragraphs.append("")
        elif ITEM.match(line):
            paragraphs.append(ITEM.sub("", line, count=1))
        else:
            paragraphs[-1] += f" {line}"
    return [shown for text in paragraphs if re.search(r"\w\w", shown := " ".join(text.split()))]


def sentences_of(page: str) -> list[str]:
    """Return a page's sentences, those of cells and list items included."""
    return [sentence for text in paragraphs_of(page) for sentence in END.split(text)]


def words_of(sentence: str) -> list[str]:
    """Return a sentence's words; inline code is one word."""
    return re.findall(r"[\w'’.,/-]*\w[\w'’.,/%×°-]*", sentence)  # noqa: RUF001


def reading_grade(page: str) -> float:
    """Return the Automated Readability Index (Senter and Smith, 1967) of whole sentences.

    That is about the number of school years that a reader needs. Code counts as four letters.
    """
    whole = [sentence for sentence in sentences_of(page) if sentence.endswith((".", "!", "?", ":"))]
    words = [word for sentence in whole for word in words_of(sentence)]
    if not words:
        return 0.0
    letters = sum(len(re.sub(r"\W", "", word)) for word in words)
    return 4.71 * letters / len(words) + 0.5 * len(words) / len(whole) - 21.43
