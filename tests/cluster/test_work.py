"""Parts of a job array: every item in one part, whatever their number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milan_pipeline.cluster.work import Part
from milan_pipeline.errors import ConfigError


@given(items=st.integers(0, 40), count=st.integers(1, 50))
def test_every_item_is_in_one_part(items: int, count: int) -> None:
    parts = [Part(number, count).of(range(items)) for number in range(count)]
    assert sorted(item for part in parts for item in part) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_part_is_every_nth() -> None:
    part = Part.parse("1/3")
    assert part == Part(1, 3)
    assert part.of("abcdefgh") == ["b", "e", "h"]
    assert part.name == "part-001-of-003"


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/3", "1/ 3", "a/b", "0/0", "1/3/5"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not K/N with 0 <= K < N"):
        Part.parse(text)
