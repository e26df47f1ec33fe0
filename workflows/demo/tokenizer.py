"""Turns words into numbers for the demo's small text tower."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

PAD, START, UNKNOWN = 0, 1, 2
_FIRST_WORD = 3


class WordTokenizer:
    """One number a word: padding, start and unknown first, then the words, then the end mark.

    open_clip takes a caption's feature at the highest number, which must be the end mark's.
    """

    def __init__(self, words: Sequence[str], context_length: int) -> None:
        self.context_length = context_length
        self.end = _FIRST_WORD + len(words)
        self._number = {word: _FIRST_WORD + k for k, word in enumerate(words)}

    @classmethod
    def from_file(cls, path: Path, context_length: int) -> "WordTokenizer":
        """Read a vocabulary of one word a line."""
        return cls(path.read_text(encoding="utf-8").split(), context_length)

    @property
    def vocab_size(self) -> int:
        """Numbers in use, marks included."""
        return self.end + 1

    def knows(self, word: str) -> bool:
        """Whether the word is in the vocabulary."""
        return word in self._number

    def __call__(self, texts: Iterable[str]) -> torch.Tensor:
        """Tokenise texts to (n, context_length) int64; a longer text loses its last words."""
        rows = []
        for text in texts:
            words = text.lower().split()[: self.context_length - 2]
            row = [START, *(self._number.get(word, UNKNOWN) for word in words), self.end]
            rows.append(row + [PAD] * (self.context_length - len(row)))
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, self.context_length)
