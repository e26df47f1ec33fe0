"""Work on many items that any process can do, described by names and numbers alone.

The description is small enough to be sent to other machines. Each process reads from the store
itself what it takes to do an item (codecs, a teacher, a manifest).

`Part` says which units a job of an array does: every N-th of the full list. The list is the same
for all parts, whatever is done already, so the parts need not communicate. A part that is submitted
again must have the same N as before.
"""

import abc
import dataclasses
import re
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import ConfigError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Work(abc.ABC, Generic[ItemT, ResultT]):
    """Work that a process has begun; it does items, perhaps in several threads at once."""

    @abc.abstractmethod
    def do(self, item: ItemT, stop: StopRequest) -> ResultT:
        """Do an item; the same item gives the same bytes in every process.

        Raises:
            InterruptedRunError: a stop was asked for.
            StorageError: a store cannot be read or written, which may be temporary.
        """

    def end(self, state: str) -> None:
        """End the work, after its last item; `state` is "done" or "interrupted"."""


class WorkSpec(Protocol[ItemT, ResultT]):
    """Describes work; a process begins equal ones only once."""

    def begin(self, number: int | None) -> Work[ItemT, ResultT]:
        """Read what every item needs.

        Args:
            number: of this process among those that share the machine's GPUs; None where it has
                them to itself.

        Raises:
            MismatchError: what is here is not what the spec was made for.
            StorageError: a store cannot be read, which may be temporary.
        """


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

    def share(self, number: int, count: int) -> "Part":
        """Return share `number` of `count` of this part; together the shares are the part."""
        return Part(self.number + self.count * number, self.count * count)

    def __str__(self) -> str:
        """Write it as `K/N`."""
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[ItemT]) -> list[ItemT]:
        """Return items K, K + N, K + 2N, … of the full list."""
        return list(items[self.number :: self.count])
