"""Signs that a folder is not the class tree that it was taken for, said before it is used."""

import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from milan_pipeline.core.counting import are, counted, has
from milan_pipeline.images.file_faults import shortened
from milan_pipeline.images.sources import Source, archives

logger = logging.getLogger(__name__)

NAMED = 5
"""So many classes or files are named."""
PARTS = frozenset(
    ("train", "training", "trainval", "val", "valid", "validation", "dev", "eval", "test")
) | frozenset(("testing", "images", "image", "img", "imgs", "jpegimages", "annotations", "masks"))
"""Names of the parts of a data set, in small letters."""

NOTHING = frozenset(("nan", "none", "null", "n/a", "na", "<na>"))
"""What programs write where there is no value, in small letters."""


def some(names: list[str]) -> str:
    """Name the first few."""
    shown = ", ".join(shortened(name, 40) for name in names[:NAMED])
    return f"{shown}, …" if len(names) > NAMED else shown


def warn_of_source(source: Source, root: Path) -> None:
    """Say what looks wrong with a dataset, each in one warning.

    Args:
        source: its files and classes.
        root: where it lies.
    """
    if source.stray:
        logger.warning(
            "%s beside the sub-folders (%s) %s %s a flat folder without classes; move them to "
            "have a class tree",
            *(counted(len(source.stray), "images"), some(source.stray)),
            *("makes" if len(source.stray) == 1 else "make", root),
        )
    unread = list(source.files.unread())
    if unread:
        logger.warning(
            "%d of %d pictures in %s %s of a format that is not read (%s); convert to JPEG, PNG or "
            "WebP",
            *(len(unread), len(source.files), root, are(len(unread))),
            some(unread),
        )
    if source.others:
        logger.warning(
            "%s without a picture in %s %s no class (%s)",
            *(counted(len(source.others), "folders"), root),
            *(are(len(source.others)), some(source.others)),
        )
    packed = archives([row["file"] for row in source.ignored])
    if packed and not source.is_listed:
        logger.warning(
            "%s in %s %s left out (%s); unpack them if they hold images",
            *(counted(len(packed), "archives"), root, are(len(packed)), some(packed)),
        )
    _warn_of_names(source.classes, root)
    if source.is_listed:
        _warn_of_list(source, root)
    elif source.classes:
        _warn_of_classes(source, root)


def warn_of_lost_classes(source: Source, skipped: Collection[str]) -> None:
    """Name the classes of which no image is left.

    Args:
        source: files and classes.
        skipped: keys of the images that cannot be read.
    """
    left = {file.label for file in source.files if file.key not in skipped}
    lost = [name for number, name in enumerate(source.classes) if number not in left]
    if lost:
        logger.warning(
            "%d of %d classes %s no image that was packed (%s)",
            *(len(lost), len(source.classes), has(len(lost)), some(lost)),
        )


def number_of_classes(source: Source) -> int:
    """Return how many classes the files have, by name or, in a list without names, by number."""
    return len(source.classes) or len(set(source.files.labels()) - {None})


def _warn_of_list(source: Source, root: Path) -> None:
    labels = Counter(source.files.labels())
    labelled = len(source.files) - labels.pop(None, 0)
    _warn_of_gaps(source, {label for label in labels if label is not None}, root)
    left = len(source.files) - labelled
    if labelled and left:
        logger.warning(
            "%d of %d images of %s %s no class; to train or score by classes, give each one",
            *(left, len(source.files), root, has(left)),
        )
    nothing = [name for name in source.classes if name.lower() in NOTHING]
    if nothing:
        logger.warning(
            "%s is a class of %s; if it says that an image has none, leave the field empty",
            *(nothing[0], root),
        )
    if 1 < len(source.classes) == labelled:
        logger.warning(
            "each image of %s has a class of its own (%s); if those are captions, leave them out",
            *(root, some(source.classes)),
        )


def _warn_of_gaps(source: Source, numbers: set[int], root: Path) -> None:
    """Say so where classes are numbers, and numbers below the highest have no image."""
    most = max(numbers, default=-1)
    if source.classes or len(numbers) > most:
        return
    lost = most + 1 - len(numbers)
    first = next(number for number in range(most) if number not in numbers)
    logger.warning(
        "%d of the class numbers 0 to %d %s no image in %s (%d is the first), but %s as %s; number "
        "the classes from 0 on if none is missing",
        *(lost, most, has(lost), root, first),
        *(("counts", "a class") if lost == 1 else ("count", "classes")),
    )


def _warn_of_names(classes: list[str], root: Path) -> None:
    """Say so where names are numbers but not the classes', or differ in capitals alone."""
    if all(name.isdecimal() for name in classes):
        numbers = list(map(int, classes))
        at = next((n for n, name in enumerate(sorted(numbers)) if numbers[n] != name), None)
        if at is not None:
            logger.warning(
                "the classes of %s are numbered in the order of their names as text, so that %s is "
                "class %d; name them with leading zeros if other sets have these numbers alone",
                *(root, classes[at], at),
            )
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            logger.warning(
                "the classes %s and %s of %s differ in capitals alone; rename one if they are the "
                "same",
                *(shortened(other), shortened(name), root),
            )
            return


def _warn_of_classes(source: Source, root: Path) -> None:
    classes = source.classes
    parts = [name for name in classes if name.lower() in PARTS]
    if 2 * len(parts) >= len(classes):
        logger.warning(
            "the classes of %s are called %s, like parts of a data set; if the classes are the "
            "folders below, give %s",
            *(root, some(classes), _one_of(root, parts)),
        )
    elif len(classes) == 1:
        logger.warning(
            "%s has only one class, %s; if the classes are the folders below, give %s",
            *(root, some(classes), root / classes[0]),
        )
    elif _has_only_sub_folders(source):
        logger.warning(
            "each class of %s (%s) has nothing but sub-folders; if those are the classes, give %s",
            *(root, some(classes), _one_of(root, classes)),
        )


def _one_of(root: Path, names: list[str]) -> str:
    places = [str(root / name) for name in names[:NAMED]]
    return places[0] if len(names) == 1 else f"one of {', '.join(places)}"


def _has_only_sub_folders(source: Source) -> bool:
    """Whether all files lie two levels deep or more, in sub-folders of different names."""
    if any(name.count("/") < 2 for name in source.files.names()):
        return False
    return len({name.split("/", 2)[1] for name in source.files.names()}) > 1
