"""Class numbers of the labels in a list or table: numbers as they are, or names in their order."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from milan_pipeline.errors import DataError
from milan_pipeline.images.spelling import NO_UTF8, require_distinct

MOST_CLASSES = 1_000_000
"""A higher number is an identifier; a classifier would need an output for each one below it."""
BREAKS = re.compile(r"[\t\r\n]")
NUMBER_LIKE = re.compile(r"[-+.,\d]*\d[.,\d]*")


def class_numbers(
    labels: Sequence[str], place: Path, error: Callable[[str, str, str], DataError]
) -> tuple[dict[str, int], list[str]]:
    """Number the classes.

    Args:
        labels: each label that comes, once, in the order of coming; none is empty.
        place: the list or table, for errors.
        error: makes the error for a label, of what is wrong with it and what helps.

    Returns:
        The number of each label, and the names in sorted order; none where labels are numbers.

    Raises:
        DataError: a number is too high, a name is not UTF-8, or numbers and names are mixed.
    """
    names = [label for label in labels if not label.isdecimal()]
    for label in labels:
        if NO_UTF8.search(label):
            raise error(label, "is not UTF-8", "save the whole file as UTF-8")
        if BREAKS.search(label):
            raise error(
                label, "is no class number and no name", "take the tab or line break out of it"
            )
        if label.isdecimal() and int(label) >= MOST_CLASSES:
            remedy = f"number the classes 0, 1, …, or write names (at most {MOST_CLASSES} classes)"
            raise error(label, "is too high for a class number", remedy)
    for label in names:
        is_like_number = NUMBER_LIKE.fullmatch(label) or label.isnumeric()
        if is_like_number or len(names) < len(labels):
            remedy = "write 0, 1, … or, in all lines, the names of the classes"
            raise error(label, "is no class number", remedy)
    if not names:
        return {label: int(label) for label in labels}, []
    require_distinct(sorted(names), place)
    classes = sorted(names)
    return {name: number for number, name in enumerate(classes)}, classes
