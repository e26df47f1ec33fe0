"""Whether the class numbers of two sets mean the same."""

import pytest

from milan_pipeline.data.class_names import require_same_names
from milan_pipeline.errors import MismatchError


def compare(train, test):
    require_same_names(train, test, train_place="--train a", test_place="--val b")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("abc", "ac", "--val b has no class b, which --train a has, .* make an empty folder"),
        ("abd", "ad", "make an empty folder .*, or write numbers for names where it was packed"),
        ("abc", "ab", "--val b has no class c, which"),
        ("ab", "abc", r"--val b has classes that --train a lacks \(c\)"),
        ("ab", "cd", r"\(c, d\); none has its name: give its classes the names .* in --train a"),
        ("ab", "bc", r"--val b has classes that --train a lacks \(c\); take those out"),
        ("ab", "aB", "write their names as there, 'b' for 'B'"),
        ("ab", "ba", "class 0 is 'a' in --train a and 'b' in --val b"),
    ],
)
def test_other_classes_are_refused_by_name(train, test, message):
    with pytest.raises(MismatchError, match=message) as caught:
        compare(list(train), tuple(test))
    assert "None" not in str(caught.value)


def test_equal_classes_and_sets_without_names_are_fine(caplog):
    compare(["a", "b"], ("a", "b"))
    compare([], ())
    assert not caplog.records


@pytest.mark.parametrize(("train", "test"), [("ab", ""), ("", "ab")])
def test_numbers_beside_names_cannot_be_checked_and_that_is_said(train, test, caplog):
    compare(list(train), list(test))
    assert "has numbers alone: that these count in the order of those names (a, b)" in caplog.text
