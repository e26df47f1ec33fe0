"""Whether the class numbers of two sets of images mean the same classes, as far as they say."""

import logging
from collections.abc import Sequence

from milan_pipeline.errors import MismatchError
from milan_pipeline.images.class_tree import some
from milan_pipeline.images.spelling import in_one_form

logger = logging.getLogger(__name__)

IN_TABLES = ", or write numbers for names where it was packed from a list or table"
"""What helps there in place of an empty folder."""


def require_same_names(
    train: Sequence[str], test: Sequence[str], *, train_place: str, test_place: str
) -> None:
    """Refuse two sets whose class numbers mean different classes.

    If one of them has numbers alone, both are accepted, with a warning.

    Args:
        train: names of the classes that are learnt, in the order of their numbers; may be empty.
        test: of those that are scored.
        train_place: option and place of the former, for errors.
        test_place: of the latter.

    Raises:
        MismatchError: a number has two names.
    """
    if bool(train) != bool(test):
        named, other = (train_place, test_place) if train else (test_place, train_place)
        logger.warning(
            "%s names its classes, %s has numbers alone: that these count in the order of those "
            "names (%s) cannot be checked",
            *(named, other, some(list(train or test))),
        )
        return
    train, test = ([in_one_form(name) for name in names] for names in (train, test))
    if train == test:
        return
    lacking = [name for name in train if name not in test]
    unknown = [name for name in test if name not in train]
    if unknown:
        raise MismatchError(
            f"{test_place} has classes that {train_place} lacks ({some(unknown)}); "
            f"{_remedy(unknown, lacking, train, train_place)}"
        )
    if lacking:
        raise MismatchError(
            f"{test_place} has no class {some(lacking)}, which {train_place} has, so that its "
            "class numbers are others; make an empty folder of that name among its class folders "
            f"(and pack it again){IN_TABLES}"
        )
    number = next(n for n, (a, b) in enumerate(zip(train, test, strict=True)) if a != b)
    raise MismatchError(
        f"class {number} is {train[number]!r} in {train_place} and {test[number]!r} in "
        f"{test_place}; pack both from trees with the same class folders, their names in one form "
        "of Unicode"
    )


def _remedy(
    unknown: Sequence[str], lacking: Sequence[str], train: Sequence[str], train_place: str
) -> str:
    """Say what helps where classes are scored that are not learnt: often they are only renamed."""
    spelled = {_plain(name): name for name in lacking}
    pairs = {name: spelled[_plain(name)] for name in unknown if _plain(name) in spelled}
    if pairs:
        first = next(iter(pairs))
        return f"write their names as there, {pairs[first]!r} for {first!r} (and pack them again)"
    if len(lacking) == len(train):
        return f"none has its name: give its classes the names that they have in {train_place}"
    return f"take those out, and make an empty folder for each class that is missing{IN_TABLES}"


def _plain(name: str) -> str:
    """Return a name without what people write in one way or another."""
    return "".join(filter(str.isalnum, name.casefold()))
