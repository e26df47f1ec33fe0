"""Work on many items that any process can do: told by names and numbers, begun once, then done.

What is told is small enough to be sent to other machines. What it takes to do an item (codecs, a
teacher, a manifest) each process reads from the store itself.
"""

from typing import Generic, Protocol, TypeVar

from milan_pipeline.interrupts import StopRequest

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Work(Generic[ItemT, ResultT]):
    """One process's: does item after item, in several threads at once where it is asked to."""

    def do(self, item: ItemT, stop: StopRequest) -> ResultT:
        """Do an item; the same item gives the same bytes, whoever does it.

        Raises:
            InterruptedRunError: a stop was asked for.
            StorageError: a store cannot be read or written; that may pass.
        """
        raise NotImplementedError

    def end(self, state: str) -> None:
        """Hear that nothing more will come, and how that ended: done or interrupted."""


class WorkSpec(Protocol[ItemT, ResultT]):
    """Says what is to be done; equal ones are begun once in a process."""

    def begin(self, number: int | None) -> Work[ItemT, ResultT]:
        """Read what every item needs.

        Args:
            number: of this process among those that share the machine's GPUs; None where it has
                them to itself.

        Raises:
            MismatchError: what is here is not what the spec was made for.
            StorageError: a store cannot be read; that may pass.
        """
