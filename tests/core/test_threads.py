"""Running a generator ahead in a thread."""

import contextlib
import threading
from collections.abc import Generator

import pytest

from milan_pipeline.core.threads import read_ahead


def numbers(until: int, taken: list[int], ended: list[str]) -> Generator[int, None, None]:
    try:
        for number in range(until):
            taken.append(number)
            yield number
    finally:
        ended.append(threading.current_thread().name)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("ahead", [1, 3])
def test_everything_comes_in_order_and_so_far_ahead(workers: int, ahead: int) -> None:
    taken: list[int] = []
    ended: list[str] = []
    items = read_ahead(numbers(20, taken, ended), ahead=ahead, workers=workers)
    assert next(items) == 0
    assert len(taken) <= ahead
    assert list(items) == list(range(1, 20))
    assert len(ended) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_it_is_closed_with_its_reader(workers: int) -> None:
    taken: list[int] = []
    ended: list[str] = []
    items = read_ahead(numbers(20, taken, ended), ahead=3, workers=workers)
    with contextlib.closing(items):
        assert next(items) == 0
    assert len(ended) == 1
    assert len(taken) < 20


@pytest.mark.parametrize("workers", [0, 1])
def test_its_errors_come_where_they_were(workers: int) -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise ZeroDivisionError

    items = read_ahead(failing(), ahead=3, workers=workers)
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)
