"""The images that a trained model is scored on: read, prepared and shared among the processes."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import progress_bar
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import RunLedger, readable
from milan_pipeline.training.validation import until_stopped

PreparedT = TypeVar("PreparedT")


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
    """

    table: LabelledTable
    ledger: RunLedger
    batch: int
    threads: int
    world: World = dataclasses.field(default_factory=World)
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)

    def batches(
        self,
        prepare: Callable[[dict[str, Any]], PreparedT],
        together: Callable[[Iterator[PreparedT], int], Iterator[list[PreparedT]]],
    ) -> Generator[list[PreparedT], None, None]:
        """Yield this process's images in batches; at the end, share the ledger.

        Args:
            prepare: decodes a sample, in a thread.
            together: divides prepared images into batches of at most `batch`.

        Raises:
            DataError: more images than the ledger allows cannot be decoded.
            InterruptedRunError: a stop signal came to any process.
        """
        self.ledger.begin_anew()
        samples = self.table.read(self.table.places(self.world))
        prepared = ordered_map(
            self.ledger.noting(prepare), samples, workers=self.threads, ahead=2 * self.batch
        )
        bar = progress_bar("evaluate", total=self.table.samples, shown=self.world.leads)
        with contextlib.closing(samples), contextlib.closing(prepared), bar:
            asking = until_stopped(prepared, self.stop, self.world, total=self.table.samples)
            for some in together(readable(asking), self.batch):
                yield some
                bar.update(len(some) * self.world.size)
        self.ledger.settle(self.world)
