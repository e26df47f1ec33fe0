"""Texts in arrays: they come back as they were, and reading them takes no memory."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from milan_pipeline.core.text_table import TextTable, in_order

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(NAMES))
def test_texts_come_back_in_any_order(texts: list[str]) -> None:
    table = TextTable(texts)
    assert [table[row] for row in range(len(table))] == texts
    turned = table.take(np.arange(len(texts))[::-1])
    assert [turned[row] for row in range(len(turned))] == texts[::-1]
    assert len(turned.take(np.arange(len(texts))[:1])) == min(1, len(texts))


def test_a_name_of_other_bytes_than_utf_8_comes_back() -> None:
    assert TextTable(["a\udcff.jpg"])[0] == "a\udcff.jpg"


def test_reading_takes_no_memory() -> None:
    table = TextTable(f"some class/{number:09d}.jpg" for number in range(20_000))
    tracemalloc.start()
    for row in range(len(table)):
        assert table[row].endswith(".jpg")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000


def test_names_come_in_order_out_of_little_memory() -> None:
    names = [f"{7 * number % 100}é\udcff.jpg" for number in range(100)] + ["\ue000", "\udcff"]
    assert list(in_order(names, run=7)) == sorted(names)
    assert list(in_order([])) == []
    tracemalloc.start()
    rest = in_order((f"{number:06d}.jpg" for number in range(20_000)), run=1000)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(1 for _ in rest) == 20_000
    assert kept < peak < 30 * 20_000  # a list of them takes 67 bytes each
