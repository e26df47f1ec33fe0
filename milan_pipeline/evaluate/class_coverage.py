"""Warns of classes that are not both trained on and scored."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

NAMED = 10
Numbers = NDArray[np.int64]


def warnings_of_classes(
    learnt: Numbers,
    scored: Numbers,
    *,
    what: str,
    places: tuple[str, str],
    names: Sequence[str] = (),
    outputs: int = 0,
) -> Iterator[str]:
    """Yield a sentence for each kind of gap between what is learnt and what is scored.

    Args:
        learnt: numbers of the classes that there is something of to learn from.
        scored: numbers of those that there is something of to score on.
        what: "image" or "pixel".
        places: what the two sets are called, for example "--train A" and "--val B".
        names: of the classes, where they are known.
        outputs: how many classes the model tells apart; 0 is those that are learnt.
    """
    train, val = places
    absent = np.setdiff1d(np.arange(outputs), np.union1d(learnt, scored))
    unlearnt, unscored = np.setdiff1d(scored, learnt), np.setdiff1d(learnt, scored)
    if len(absent):
        yield (
            f"no {what} of {named(absent, names)} is in {train} or {val}: the model has outputs "
            "for classes that it never sees; number the classes without gaps, or leave these out"
        )
    if len(unlearnt):
        yield (
            f"no {what} of {named(unlearnt, names)} is in {train}, but {val} has some, which can "
            "never be answered rightly; give both sets the same classes"
        )
    if len(unscored):
        yield (
            f"no {what} of {named(unscored, names)} is in {val}: the scores say nothing of what "
            "is learnt about it; give images of every class to score on"
        )


def named(numbers: Numbers, names: Sequence[str] = ()) -> str:
    """Write classes down, the first few of many: "class 1 ('dog')", "classes 1, 2 and 5 more"."""
    listed = [
        f"{number} ({names[number]!r})" if number < len(names) else str(number)
        for number in numbers[:NAMED].tolist()
    ]
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"class{'es' if len(numbers) > 1 else ''} {', '.join(listed)}{more}"
