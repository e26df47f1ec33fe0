"""One of a thing is not called by its plural."""

import pytest

from milan_pipeline.core.counting import counted, such


@pytest.mark.parametrize(
    ("number", "things", "said"),
    [
        (1, "shards", "1 shard"),
        (2, "shards", "2 shards"),
        (0, "images", "0 images"),
        (1, "classes", "1 class"),
        (1, "units done now", "1 unit done now"),
        (1, "batches", "1 batch"),
        (1, "skipped", "1 skipped"),
        (1, "copies", "1 copy"),
    ],
)
def test_counts_agree_with_their_words(number: int, things: str, said: str) -> None:
    assert counted(number, things) == said


def test_and_so_do_verbs() -> None:
    assert such(1, "units", "done") == "1 unit is done"
    assert such(2, "units", "done") == "2 units are done"
