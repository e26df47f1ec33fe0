"""Which columns of a table have images, classes and captions: as options say, or by their names."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.file_faults import shortened

NONE = "none"
"""In place of a column's name: the table has no such column."""
IMAGES = ("path", "filepath", "file_path", "file_name", "filename", "image_path", "image", "img")
LABELS = ("label", "class", "class_name", "category")
URLS = ("url", "urls", "image_url", "img_url", "link")
CAPTIONS = ("caption", "text")
PARTS = ("split", "subset", "partition", "set")
NAMED = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of columns; None is the first that has a usual name."""

    image: str | None = None
    label: str | None = None
    caption: str | None = None

    def image_of(self, names: Sequence[str], place: Path) -> str:
        """Return the column of images or their paths.

        Raises:
            ConfigError: there is none.
        """
        found = _column(self.image, IMAGES, names, "--image-column", place)
        if found is None:
            urls = next((name for name in names if name.strip().lower() in URLS), None)
            raise ConfigError(
                f"{place} has no column called {', '.join(IMAGES[:-1])} or {IMAGES[-1]}, but "
                f"{named(names)}; "
                + (
                    "give the column of the images by --image-column"
                    if urls is None
                    else f"download the images of {urls}, with img2dataset for instance, and give "
                    "that folder"
                )
            )
        return found

    def label_of(self, names: Sequence[str], place: Path) -> str | None:
        """Return the column of classes; None if there is none."""
        return _column(self.label, LABELS, names, "--label-column", place)

    def caption_of(self, names: Sequence[str], place: Path) -> str | None:
        """Return the column of captions; None if there is none."""
        return _column(self.caption, CAPTIONS, names, "--caption-column", place)


def part_column(names: Sequence[str], used: Sequence[str | None]) -> str | None:
    """Return the column that says of which part of a data set a row is; None if there is none.

    Args:
        names: of all columns.
        used: those that say something else.
    """
    return next((n for n in names if n.strip().lower() in PARTS and n not in used), None)


def _column(
    wanted: str | None, usual: Sequence[str], names: Sequence[str], option: str, place: Path
) -> str | None:
    found = wanted
    if wanted is None:
        by_name = {name.strip().lower(): name for name in reversed(names)}
        found = next((by_name[name] for name in usual if name in by_name), None)
    elif wanted not in names and wanted == NONE:
        return None
    elif wanted not in names:
        raise ConfigError(f"{option} {wanted} is no column of {place}, which has {named(names)}")
    if found is not None and names.count(found) > 1:
        raise ConfigError(f"{place} has {names.count(found)} columns {found}; rename all but one")
    return found


def named(names: Sequence[str]) -> str:
    """Name the columns of a table, or the first of many."""
    shown = ", ".join(shortened(name, 40) for name in names[:NAMED])
    return f"{shown}, …" if len(names) > NAMED else shown
