"""A stream over ranges reads as a file does, wherever it is sent, and fetches no byte unasked."""

import io
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.errors import StorageError
from milan_pipeline.storage.range_stream import open_ranges

DATA = bytes(range(256)) * 2

SEEK = st.tuples(st.just("seek"), st.integers(-20, 530), st.sampled_from([0, 1, 2]))
READ = st.tuples(st.just("read"), st.integers(-1, 90))
STEPS = st.lists(SEEK | READ | st.just(("tell",)), max_size=12)


class Fetcher:
    """Returns ranges of DATA, and remembers what it was asked for."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self.broken = False
        self._lock = threading.Lock()

    def __call__(self, start: int, length: int) -> bytes:
        with self._lock:
            self.asked.append((start, length))
        if self.broken:
            raise StorageError("the store is away")
        assert 0 <= start < start + length <= len(self.data)
        return self.data[start : start + length]


def done(file, step):
    """Do something with a file; a refusal is a result, too."""
    name, *values = step
    try:
        return getattr(file, name)(*values)
    except ValueError:
        return "refused"


@settings(deadline=None, derandomize=True)
@given(STEPS, st.integers(1, 70), st.integers(1, 50), st.integers(0, len(DATA)))
def test_it_reads_as_a_file_does(steps, piece: int, buffer: int, size: int) -> None:
    fetch = Fetcher(DATA[:size])
    ours, theirs = open_ranges(fetch, size, piece=piece, buffer=buffer), io.BytesIO(fetch.data)
    with ours, theirs:
        for step in steps:
            # A buffer in memory takes a seek before its beginning for one to it.
            before = step[0] == "seek" and step[1] + _base(theirs, step[2], size) < 0
            assert done(ours, step) == ("refused" if before else done(theirs, step))
        assert ours.read() == theirs.read()


def _base(file: io.BytesIO, whence: int, size: int) -> int:
    return (0, file.tell(), size)[whence]


def test_nothing_is_fetched_before_it_is_read_and_no_more_than_is_ahead() -> None:
    fetch = Fetcher()
    with open_ranges(fetch, len(DATA), piece=16, buffer=1) as file:
        file.seek(100)
        assert fetch.asked == []
        assert file.read(1) == DATA[100:101]
    # Closing waits for what threads had begun.
    assert set(fetch.asked) <= {(100 + 16 * number, 16) for number in range(4)}
    assert (100, 16) in fetch.asked


def test_every_byte_is_fetched_once_by_whoever_reads_on() -> None:
    fetch = Fetcher()
    with open_ranges(fetch, len(DATA), piece=16, buffer=1) as file:
        parts = [file.read(7) for _ in range(20)]
        file.seek(3, io.SEEK_CUR)  # as tarfile does over padding, within a piece
        rest = file.read()
    assert b"".join(parts) == DATA[:140]
    assert rest == DATA[143:]
    assert sorted(fetch.asked) == [(start, 16) for start in range(0, len(DATA), 16)]


def test_after_a_failure_it_can_be_read_again() -> None:
    fetch = Fetcher()
    with open_ranges(fetch, len(DATA), piece=16, buffer=1) as file:
        assert file.read(16) == DATA[:16]
        fetch.broken = True
        with pytest.raises(StorageError, match="the store is away"):
            file.read()
        fetch.broken = False
        file.seek(40)
        assert file.read(30) == DATA[40:70]
