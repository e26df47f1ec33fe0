"""The pictures below a folder as columns: a million of them take 50 MB, as objects 300 MB."""

import dataclasses
from array import array
from collections.abc import Iterable, Iterator

from milan_pipeline.core.text_table import TextTable
from milan_pipeline.images.formats import Kind

KINDS: tuple[Kind, ...] = ("image", "other", "none")


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A picture: its path below the root, its bytes, and what kind it is.

    `fault` says why it cannot be read, such as that it is a link to nothing; `size` is then 0.
    """

    name: str
    size: int
    kind: Kind
    fault: str | None = None


class FoundFiles:
    """Pictures by row; each is made an object when it is asked for.

    Attributes:
        names: of each, below the root.
        sizes: bytes of each.
        faults: why some cannot be read, by row.
    """

    def __init__(self, files: Iterable[Found] = ()) -> None:
        self.names = TextTable()
        self.sizes = array("q")
        self.faults: dict[int, str] = {}
        self._kinds = bytearray()
        for file in files:
            self.append(file)

    def append(self, file: Found) -> None:
        """Add a picture."""
        if file.fault is not None:
            self.faults[len(self)] = file.fault
        self.names.append(file.name)
        self.sizes.append(file.size)
        self._kinds.append(KINDS.index(file.kind))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> Found:
        return Found(self.names[row], self.sizes[row], self.kind(row), self.faults.get(row))

    def __iter__(self) -> Iterator[Found]:
        return map(self.__getitem__, range(len(self)))

    def kind(self, row: int) -> Kind:
        """Return what kind a picture is."""
        return KINDS[self._kinds[row]]
