"""Names what was perhaps meant by a word that is not known."""

import difflib
from collections.abc import Iterable

LEAST_ALIKE = 0.5
"""Of a suggestion, where a word may well be meant for something else."""


def did_you_mean(word: str, known: Iterable[str], *, least: float = 0.0) -> str:
    """Return "; did you mean 'NAME'?" of the most similar name; nothing where none is similar.

    Args:
        word: that is not known.
        known: the names that are.
        least: the similarity, up to 1, that a name must have.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=least)
    return f"; did you mean {near[0]!r}?" if near else ""
