"""What may pass is tried again, ever later; what will last is told at once."""

import contextlib
import errno

import pytest

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.storage.retries import TRIES, retried
from tests.support.remote import answering, watched


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


class ConfigParseError(Exception):
    """As botocore has it: a configuration file is broken."""


PASSING = [
    OSError("reset"), TimeoutError(), ConnectionResetError("x"), HttpError(503), HttpError(429),
]  # fmt: skip
LASTING = [
    FileNotFoundError("x"), PermissionError("x"), IsADirectoryError("x"), HttpError(403),
    ValueError("x"), StorageError("named"), ConfigParseError("x"),
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


@contextlib.contextmanager
def faulty(folder, *answers):
    """A remote file of ten bytes whose reads give what is listed, then the truth."""
    left = list(answers)

    def answer(request, action):
        found = left.pop(0) if left and request.doing == "read" else action()
        if isinstance(found, Exception):
            raise found
        return found

    (folder / "x").write_bytes(b"0123456789")
    with answering(answer):
        yield watched(folder / "x")


def test_failing_and_short_reads_are_tried_again(tmp_path, waits):
    with faulty(tmp_path, ConnectionError("gone"), b"34", b"") as url:
        assert storage.read_bytes(url, 3, 4) == b"3456"
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("answers", "error", "message", "tries"),
    [
        (
            [ConnectionError("gone")] * TRIES, StorageError,
            r"/x cannot be read: 13 tries failed \(gone\)", TRIES,
        ),
        ([FileNotFoundError("x")], MissingDataError, "/x does not exist", 1),
        ([b"0123456789"], StorageError, "must know ranges", 1),
    ],
    ids=["away", "missing", "without ranges"],
)  # fmt: skip
def test_what_a_read_ends_with(*, answers, error, message, tries, tmp_path, waits):
    with faulty(tmp_path, *answers) as url, pytest.raises(error, match=message):
        storage.read_bytes(url, 3, 4)
    assert len(waits) == tries - 1
