"""The table of mutations: which line of which file, and what is wrong with the one put there."""

import dataclasses
from pathlib import Path

import yaml

STAGES = ("pretrain", "finetune", "segment", "probe", "devices")
"""Parts of the table: what a stage computes, and what all need to run on GPUs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutation:
    """A line of the recipes' code and a wrong one for it.

    Attributes:
        means: what is wrong then.
        file: path from the checkout's root.
        old: the line as it stands there, exactly once, without its indentation.
        new: what is put in its place.
        tests: what may notice, the likeliest first: files, or single tests of files that take long.
    """

    means: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """Return the file's text with the wrong line in it.

        Raises:
            ValueError: the line is not there exactly once.
        """
        lines = source.splitlines(keepends=True)
        places = [number for number, line in enumerate(lines) if line.strip() == self.old]
        if len(places) != 1:
            raise ValueError(
                f"{self.file} has the line {self.old!r} {len(places)} times, not once; correct the "
                f"mutation {self.means!r}"
            )
        lines[places[0]] = lines[places[0]].replace(self.old, self.new)
        return "".join(lines)


def mutations_of(stage: str) -> list[Mutation]:
    """Read a stage's part of the table."""
    rows = yaml.safe_load((Path(__file__).parent / f"{stage}.yaml").read_text(encoding="utf-8"))
    return [Mutation(**row | {"tests": tuple(row["tests"])}) for row in rows]
