"""What may pass is tried again, ever later; what will last is told at once."""

import errno

import fsspec
import pytest

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.storage.retries import TRIES, retried


class Failing:
    """Raises what it is given, one at a time, then returns."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return b"data"


class HttpError(Exception):
    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


PASSING = [
    OSError("reset"), TimeoutError(), ConnectionResetError("x"), HttpError(503), HttpError(429),
]  # fmt: skip
LASTING = [
    FileNotFoundError("x"), PermissionError("x"), IsADirectoryError("x"), HttpError(403),
    ValueError("x"), StorageError("named"),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again_ever_later(error, waits):
    read = Failing(error, error, error, error)
    assert retried(read, url="s3://b/x", local=False) == b"data"
    assert read.calls == 5
    assert waits == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_does_not_pass_is_named_with_the_number_of_tries(error, waits):
    read = Failing(*[error] * 2 * TRIES)
    with pytest.raises(StorageError, match=r"^s3://b/x cannot be read: 13 tries failed \(.+\);"):
        retried(read, url="s3://b/x", local=False)
    assert read.calls == TRIES
    assert len(waits) == TRIES - 1
    assert 110 <= sum(waits) <= 130
    assert max(waits) == 15


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_will_last_is_raised_at_once(error, waits):
    with pytest.raises(type(error)):
        retried(Failing(error), url="s3://b/x", local=False)
    assert waits == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_of_a_file_only_what_a_server_may_mend_is_tried_again(number, waits):
    assert retried(Failing(OSError(number, "x")), url="/x", local=True) == b"data"
    assert waits == [0.5]
    for error in (OSError(errno.EBADF, "x"), HttpError(503)):
        with pytest.raises(type(error)):
            retried(Failing(error), url="/x", local=True)
    assert waits == [0.5]


# ---- through storage


@pytest.fixture
def faulty(monkeypatch):
    """A remote file of ten bytes whose reads give what the test lists, then the truth."""
    storage.put_bytes("memory://retries/x", b"0123456789")
    filesystem, _ = fsspec.core.url_to_fs("memory://retries/x")
    answers: list[bytes | Exception] = []
    real = type(filesystem).cat_file

    def cat_file(self, path, start=None, end=None):
        answer = answers.pop(0) if answers else real(self, path, start, end)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(type(filesystem), "cat_file", cat_file)
    return answers


def test_failing_and_short_reads_are_tried_again(faulty, waits):
    faulty += [ConnectionError("gone"), b"34", b""]
    assert storage.read_bytes("memory://retries/x", 3, 4) == b"3456"
    assert len(waits) == 3


def test_a_store_that_stays_away_is_named(faulty):
    faulty += [ConnectionError("gone")] * TRIES
    with pytest.raises(StorageError, match=r"retries/x cannot be read: 13 tries failed \(gone\)"):
        storage.read_bytes("memory://retries/x", 3, 4)


def test_a_missing_file_is_not_waited_for(faulty, waits):
    faulty.append(FileNotFoundError("x"))
    with pytest.raises(MissingDataError, match="retries/x does not exist"):
        storage.read_bytes("memory://retries/x")
    assert waits == []


def test_a_server_without_ranges_is_told_at_once(faulty, waits):
    faulty.append(b"0123456789")
    with pytest.raises(StorageError, match="must know ranges"):
        storage.read_bytes("memory://retries/x", 3, 4)
    assert waits == []
