"""Tables are read once while they are in use, and dropped when others are."""

import threading

import pytest

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.recent import RecentTables


def test_what_is_in_use_is_read_once_and_the_rest_is_dropped():
    read = []

    def reader(key):
        read.append(key)
        return key.upper()

    tables = RecentTables(reader, kept_uses=3)
    assert [tables[key] for key in "abab"] == list("ABAB")
    assert read == ["a", "b"]
    for key in "bbbb":
        assert tables[key] == "B"
    assert tables["a"] == "A"
    assert read == ["a", "b", "a"]


def test_threads_that_ask_together_wait_for_one_read():
    read = []
    begun = threading.Barrier(4)

    def reader(key):
        read.append(key)
        return key

    tables = RecentTables(reader)

    def ask(key):
        begun.wait(20)
        return tables[key]

    assert list(ordered_map(ask, "aaaa", workers=4, ahead=4)) == list("aaaa")
    assert read == ["a"]


def test_an_error_is_raised_to_all_that_ask():
    def reader(key):
        raise ValueError(key)

    tables = RecentTables(reader)
    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            tables["a"]


def test_what_could_not_be_read_for_a_while_is_read_again():
    answers = iter([OSError("busy"), "A"])

    def reader(key):
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    tables = RecentTables(reader)
    with pytest.raises(OSError, match="busy"):
        tables["a"]
    assert tables["a"] == tables["a"] == "A"
