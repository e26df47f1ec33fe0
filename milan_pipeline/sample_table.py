"""What an order runs over: samples that lie in shards, and can be read one by one."""

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.shard_cache import CacheConfig


class Place(NamedTuple):
    """A sample's place in a table, and the epoch that it is read for."""

    epoch: int
    view: int
    shard: int
    row: int


class SampleTable(Protocol):
    """Samples by view, shard and row; epoch e has those of view e mod `cycle`."""

    @property
    def cycle(self) -> int:
        """How many views there are; 1 where every epoch has the same samples."""

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of samples in each shard of a view."""

    def read(
        self, places: Iterator[Place], cache: CacheConfig | None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the samples at some places, in order and verified.

        Each has `__key__`, `__url__`, `epoch` and its members' bytes.
        """
