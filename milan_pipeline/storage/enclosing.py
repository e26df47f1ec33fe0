"""Find the folder that was meant, where a place within it was given: a file of a run, say."""

import os
from pathlib import Path

from milan_pipeline.storage.files import local_path

HIGHEST = 4
"""How many folders above a place are looked at."""


def enclosing(place: str, *names: str) -> str | None:
    """Return the nearest folder above a local place that has a file of one of these names.

    Args:
        place: a path that need not exist, such as `run/checkpoints` or a pattern of tars.
        names: of files that only the folder that was meant has.
    """
    local = local_path(place)
    if local is None:
        return None
    given = Path(place) if not place.startswith("file:") else local
    for folder in list(given.parents)[:HIGHEST]:
        if any(os.path.isfile(folder / name) for name in names):  # noqa: PTH113  raises nothing
            return str(folder)
    return None


def give_enclosing(place: str, *names: str) -> str | None:
    """Return the end of an error's sentence that tells to give the enclosing folder, if any."""
    folder = enclosing(place, *names)
    return None if folder is None else f"it lies in {folder}: give that folder"
