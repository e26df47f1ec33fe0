"""How many unreadable images are too many."""

import pytest

from milan_pipeline.errors import DataError
from milan_pipeline.images.budget import BadImageBudget, Skipped


def skipped(*keys: str) -> list[Skipped]:
    return [{"key": key, "reason": "r"} for key in keys]


def test_one_unreadable_image_never_fails_in_however_many_views() -> None:
    budget = BadImageBudget(fraction=0.01, images=24)
    for _ in range(3):
        budget.add("a", skipped("k"))
    with pytest.raises(DataError, match="2 of 24 images are unreadable"):
        budget.add("a", skipped("k", "another"))


def test_a_budget_of_nothing() -> None:
    budget = BadImageBudget(fraction=0, images=24)
    budget.add("a", [])
    with pytest.raises(DataError, match="1 of 24"):
        budget.add("a", skipped("k"))


def test_the_first_ten_are_named_with_their_reasons() -> None:
    budget = BadImageBudget(fraction=0.1, images=100)
    budget.add("a", skipped(*"abcdefghij"))
    with pytest.raises(DataError, match=r"a:j \(r\); repair or remove them"):
        budget.add("b", skipped("k"))
