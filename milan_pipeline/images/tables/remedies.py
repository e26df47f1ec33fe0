"""What helps where no file is there that a table lists."""

import os
import re
from pathlib import Path

from milan_pipeline.images.formats import IMAGE_EXTENSIONS

URL = "://"
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"""How a path with a drive or a server begins."""
BASE64 = re.compile(
    r"data:image/\w+;base64,.*|(/9j/|iVBORw0KGgo|UklGR)[A-Za-z0-9+/\s]{100,}=*", re.DOTALL
)
"""A JPEG, PNG or WebP as text."""


def remedy_of(folder: Path, path: str) -> str:
    """Say what would make a file of a path in a table.

    Args:
        folder: what the table's paths are relative to.
        path: that no file has.
    """
    other = path.replace("\\", "/")
    near = _other_ending(folder / path)
    remedies = (
        (
            BASE64.fullmatch(path),
            "the column has images as base64 text: decode it into bytes, and save those as Parquet",
        ),
        (
            URL in path,
            (
                "images are read from a disk: download them, with img2dataset for instance, and "
                "give that folder"
            ),
        ),
        (
            not os.path.isdir(folder),  # noqa: PTH112 - raises nothing
            f"{folder} is no folder: correct --image-folder",
        ),
        (
            WINDOWS.match(path),
            (
                "these are paths of a Windows machine: write them relative to a folder here, and "
                "give that by --image-folder"
            ),
        ),
        (
            other != path and os.path.isfile(folder / other),  # noqa: PTH113 - raises nothing
            "write / in place of \\ in its paths",
        ),
        (near, f"{near} is there: write the endings of the files into the table"),
    )
    otherwise = "give the folder that its paths are below by --image-folder"
    return next((remedy for is_so, remedy in remedies if is_so), otherwise)


def _other_ending(path: Path) -> str | None:
    """Return the name of an image that differs from a path in its ending alone, or has one."""
    stems = (str(path), os.path.splitext(path)[0])  # noqa: PTH122
    endings = (*IMAGE_EXTENSIONS, *map(str.upper, IMAGE_EXTENSIONS))
    places = (f"{stem}.{ending}" for stem in stems for ending in endings)
    return next((os.path.basename(p) for p in places if os.path.isfile(p)), None)  # noqa: PTH113, PTH119
