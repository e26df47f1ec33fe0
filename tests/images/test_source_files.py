"""Files of a data set as columns: parts and orders of them name the same files."""

from pathlib import Path

import numpy as np

from milan_pipeline.images.formats import Kind
from milan_pipeline.images.found_files import Found, FoundFiles
from milan_pipeline.images.keys import UniqueKeys
from milan_pipeline.images.source_files import FileColumns, SourceFiles

NAMES = ["cat/a.jpg", "cat/b c.jpg", "dog/d.tif", "~me/e.jpg"]


def made() -> SourceFiles:
    kinds: tuple[Kind, ...] = ("image", "image", "other", "image")
    found = FoundFiles(
        Found(name, size, kind) for size, (name, kind) in enumerate(zip(NAMES, kinds, strict=True))
    )
    columns = FileColumns(
        folder=Path("/data"),
        found=found,
        keys=UniqueKeys(NAMES),
        label_n=np.array([0, 0, 1, -1], np.int32),
        places={3: "/home/me/e.jpg"},
    )
    return SourceFiles(columns, np.arange(4))


def test_each_file_is_made_of_its_columns() -> None:
    files = made()
    assert [file.name for file in files] == NAMES == list(files.names())
    assert [str(file.path) for file in files] == [
        *(f"/data/{name}" for name in NAMES[:3]), "/home/me/e.jpg",
    ]  # fmt: skip
    assert [file.label for file in files] == [0, 0, 1, None] == list(files.labels())
    assert files[0].key == "cat/a"
    assert files[1].key.startswith("cat/b_c-")
    assert list(files.unread()) == ["dog/d.tif"]


def test_a_part_of_an_order_has_the_files_at_those_places() -> None:
    part = made().take(np.array([3, 1, 0, 2]))[1:3]
    assert list(part.names()) == ["cat/b c.jpg", "cat/a.jpg"]
    assert part[1] == made()[0]
    assert part.bytes == 1
