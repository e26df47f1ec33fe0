"""What every table of images gives: its rows in order, and the bytes of an image that it holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from milan_pipeline.images.folder_walk import Ignored


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        path: of the image, as the table has it; empty if it has none.
        size: bytes of an image that the table itself holds; None if it lies in a file at the path.
        label: its class, a number or a name; empty, None or -1 if it has none.
        caption: a text about it, or a list of texts; None if it has none.
        fault: what is wrong with it, in words that fit behind "it is".
        part: the part of a data set that it is of, as "train"; None if the table does not say.
    """

    path: str
    size: int | None = None
    label: object = None
    caption: object = None
    fault: str | None = None
    part: object = None


class Table(Protocol):
    """Rows of images, read in order once, and images that are read in any order afterwards.

    Attributes:
        place: what messages call it.
        folder: what paths are relative to.
        classes: the names of the class numbers, where the table itself has them.
        holds_images: whether it has columns of images, and is no plain list of paths.
        ignored: what is no image of it, and why; complete once the rows were read.
    """

    place: Path
    folder: Path
    classes: list[str]
    holds_images: bool
    ignored: list[Ignored]

    def rows(self) -> Iterator[Row]:
        """Yield the rows; called once."""

    def where(self, row: int) -> str:
        """Say which row that is of the rows that were yielded, so that users find it."""

    def image(self, row: int) -> bytes | None:
        """Return the bytes of an image that the table holds; None if it lies in a file."""
