"""Which units a job of an array does: every N-th of the full list, told apart by K alone.

Nothing is agreed on between parts: the list is the same for all, whatever is done of it already.
So a part that is submitted again must be given the N of the first submission.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from milan_pipeline.errors import ConfigError

ItemT = TypeVar("ItemT")


@dataclasses.dataclass(frozen=True)
class Part:
    """Part `number` of `count`, from 0."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `K/N`.

        Raises:
            ConfigError: it has another form, or K is not within 0 to N - 1.
        """
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        part = cls(int(found[1]), int(found[2])) if found else None
        if part is None or part.number >= part.count:
            raise ConfigError(
                f"--part {text!r} is not K/N with 0 <= K < N; give 0/16 to 15/16 for 16 parts"
            )
        return part

    @property
    def name(self) -> str:
        """The part's name in file names: `part-003-of-016`."""
        return f"part-{self.number:03d}-of-{self.count:03d}"

    def of(self, items: Sequence[ItemT]) -> list[ItemT]:
        """Return items K, K + N, K + 2N, … of the full list."""
        return list(items[self.number :: self.count])
