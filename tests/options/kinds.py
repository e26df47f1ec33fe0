"""How an option is shown to be alive: one entry a field of a command's configuration."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.options.running import Finished

Settings = Mapping[str, Any]
"""Values by field name; None leaves the option out, `{name}` in a text is a place."""


@dataclasses.dataclass(frozen=True)
class Differs:
    """Content: with another value the output is another one.

    Attributes:
        value: the other value.
        given: what both runs have beside the command's base.
        along: what goes with the other value, where that cannot stand alone.
    """

    value: Any
    given: Settings = dataclasses.field(default_factory=dict)
    along: Settings = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Same:
    """Execution: with another value the output is the same, up to `within` where that is promised.

    All options of the same `given`, `within` and `group` are changed in one run.
    """

    value: Any
    given: Settings = dataclasses.field(default_factory=dict)
    within: float = 0.0
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where input lies: the same input elsewhere gives the same output, other input another.

    Attributes:
        moved: a copy of what the base or `given` names.
        other: something else of its kind.
        given: what all three runs have beside the command's base.
    """

    moved: Any
    other: Any
    given: Settings = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Decides:
    """Whether the command refuses: of the runs with and without the value one fails and says why.

    Attributes:
        value: the other value.
        said: a pattern of the error.
        given: what both runs have beside the command's base.
        before: how the command was run into the same folder before; the run that passes then ends
            as if it never had been.
    """

    value: Any
    said: str
    given: Settings = dataclasses.field(default_factory=dict)
    before: Settings | None = None


@dataclasses.dataclass(frozen=True)
class Grows:
    """Extent: with `less` another output comes out, and a second run without it completes that."""

    less: Any
    given: Settings = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Exempt:
    """Not shown here; the reason says who shows it, or why nobody can."""

    reason: str


Entry = Differs | Same | Place | Decides | Grows | Exempt

FITTING: Mapping[str, tuple[type, ...]] = {
    "content": (Differs, Decides, Exempt),
    "extent": (Grows, Place, Exempt),
    "execution": (Same, Place, Decides, Grows, Exempt),
}
"""What may show an option of each role; of several entries of an option, each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The options of a command.

    Attributes:
        command: its name.
        base: options of every run; `{out}` is a folder that is empty before each.
        outcome: reads from a finished run what counts as its output. Records do not: they repeat
            the options, and any option would show in them.
        entries: by field name; several where it takes more than one to show it.
    """

    command: str
    base: Settings
    outcome: Callable[[Finished], dict[str, Any]]
    entries: Mapping[str, Entry | tuple[Entry, ...]]

    def all_entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield the entries one by one, each with its option."""
        for name, entry in self.entries.items():
            yield from ((name, one) for one in (entry if isinstance(entry, tuple) else (entry,)))
