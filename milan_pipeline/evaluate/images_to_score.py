"""The images that a trained model is scored on: read, prepared and shared among the processes."""

import contextlib
import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from torch import Tensor

from milan_pipeline.cluster.world import World
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.errors import InterruptedRunError
from milan_pipeline.shards.random_access import IMAGE_MEMBER
from milan_pipeline.training.partial_scores import PartialScores
from milan_pipeline.training.validation import until_stopped

PreparedT = TypeVar("PreparedT")

WAITING_BYTES = 16 << 20
"""Images wait in this much memory, or two for each thread, or two batches of small ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesToScore:
    """Labelled images, and with which resources they are read.

    Attributes:
        table: of the images.
        ledger: lists the images that cannot be decoded, which are left out.
        batch: images in a forward pass.
        threads: number of threads that decode.
        world: the processes, each of which must score its share.
        stop: asked between images.
        partial: keeps what was done where a stop signal comes, and has what was done before; None
            keeps nothing.
    """

    table: LabelledTable
    ledger: RunLedger
    batch: int
    threads: int
    world: World = dataclasses.field(default_factory=World)
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)
    partial: PartialScores | None = None

    def _cost(self, sample: dict[str, Any]) -> float:
        """Tell for how many images one counts that is read and waits for a thread."""
        ahead = 2 * self.batch
        cost = ahead * len(sample[IMAGE_MEMBER]) / WAITING_BYTES
        return max(1.0, min(cost, ahead / (2 * self.threads)))

    def batches(
        self,
        prepare: Callable[[dict[str, Any]], PreparedT],
        together: Callable[[Iterator[PreparedT], int], Iterator[list[PreparedT]]],
        sums: Tensor,
    ) -> Generator[list[PreparedT], None, None]:
        """Yield this process's images in batches; at the end, share the ledger.

        Args:
            prepare: decodes a sample, in a thread.
            together: divides prepared images into batches of at most `batch`, in their order.
            sums: float64, counts of the images of all batches before the one that is asked for;
                what `partial` has is added to them.

        Raises:
            DataError: more images than the ledger allows cannot be decoded.
            InterruptedRunError: a stop signal came to any process.
        """
        self.ledger.begin_anew()
        done = 0 if self.partial is None else self.partial.begin(sums, self.ledger)
        places = list(itertools.islice(self.table.places(self.world), done, None))
        samples = self.table.read(iter(places))
        prepared = ordered_map(
            self.ledger.noting(prepare),
            samples,
            workers=self.threads,
            ahead=2 * self.batch,
            cost=self._cost,
        )
        asking = until_stopped(prepared, self.stop, self.world, count=len(places))
        waiting: deque[int] = deque()  # numbers of images that are not in a batch yet

        def readable() -> Iterator[PreparedT]:
            for number, each in enumerate(asking, start=done):
                if each is not None:
                    waiting.append(number)
                    yield each

        bar = progress_bar(
            "evaluate",
            total=self.table.samples,
            initial=done * self.world.size,
            shown=self.world.leads,
        )
        try:
            with contextlib.closing(samples), contextlib.closing(prepared), bar:
                for some in together(readable(), self.batch):
                    yield some
                    bar.update(len(some) * self.world.size)
                    for _ in some:
                        done = waiting.popleft() + 1
        except InterruptedRunError:
            if self.partial is not None:
                self.partial.keep(done, sums, self.ledger)
            raise
        self.ledger.settle(self.world)
