"""Find the folder that was meant, where a place within it was given: a file of a run, say."""

import os
import re
from pathlib import Path

from milan_pipeline.storage.files import local_path

HIGHEST = 4
"""How many folders above a place are looked at."""
WITHIN = re.compile(r"checkpoints|done|log|marks|progress|step-\d+|view-\d+|.*\.tar|.*[*{].*")
"""Names of what lies within an output, tars, and patterns of several files."""


def enclosing(place: str, *names: str) -> str | None:
    """Return the nearest folder above a local place that has a file of one of these names.

    A place that does not exist is only looked for where its names say that it lies within an
    output. Otherwise it may be misspelled, and have nothing to do with the folder above it.

    Args:
        place: a path, such as `run/checkpoints`, or a pattern of tars.
        names: of files that only the folder that was meant has.
    """
    local = local_path(place)
    if local is None:
        return None
    given = Path(place) if not place.startswith("file:") else local
    is_known = os.path.lexists(given)
    for place_above, folder in zip((given, *given.parents), given.parents[:HIGHEST], strict=False):
        is_known = is_known or WITHIN.fullmatch(place_above.name) is not None
        # `isfile` raises nothing.
        if any(os.path.isfile(folder / name) for name in names):  # noqa: PTH113
            return str(folder) if is_known else None
    return None


def give_enclosing(place: str, *names: str) -> str | None:
    """Return the end of an error's sentence that tells to give the enclosing folder, if any."""
    folder = enclosing(place, *names)
    return None if folder is None else f"it lies in {folder}: give that folder"
