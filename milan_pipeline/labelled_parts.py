"""What a table of labelled samples asks of each of its parts."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.place_reader import Read


class LabelledPart(Protocol):
    """Samples that lie together, in a shard or a folder."""

    @property
    def url(self) -> str:
        """What errors name."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) class numbers; zeros where labels are masks."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def key(self, row: int) -> str:
        """Return a sample's key."""

    def image(self, row: int, read: Read) -> bytes:
        """Read a sample's image."""

    def mask(self, row: int, read: Read) -> bytes:
        """Read a sample's mask."""

    def take(self, rows_n: NDArray[np.int64]) -> "LabelledPart":
        """Return the part with only these samples, in this order."""

    def shuffled(self, seed: int) -> "LabelledPart":
        """Return the part in a drawn order if it is as fast to read in any, else as it is."""
