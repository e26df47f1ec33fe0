"""A local file that is read from end to end outlasts a file server that fails for a while."""

import errno
import io
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.errors import StorageError
from milan_pipeline.storage.retries import TRIES

DATA = bytes(range(256)) * 400
"""More than one buffer."""


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch):
    """Make reads of some numbers fail, counted over all openings."""

    def plan(number: int, *numbers: int) -> None:
        done = 0

        class Failing(io.FileIO):
            def readinto(self, buffer):
                nonlocal done
                done += 1
                if done in numbers:
                    raise OSError(number, "it failed")
                return super().readinto(buffer)

        monkeypatch.setattr(io, "FileIO", Failing)

    return plan


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "x").write_bytes(DATA)
    return str(tmp_path / "x")


def read(place: str) -> bytes:
    with storage.open_read(place) as stream:
        stream.seek(10)
        return b"".join(iter(lambda: stream.read(1000), b""))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_what_passes_is_read_again_from_the_same_place(number: int, fail, place, waits) -> None:
    fail(number, 1, 3, 4, 5)
    assert read(place) == DATA[10:]
    assert waits == [0.5, 1.0]  # the second reading of a place is at once


def test_what_does_not_pass_is_named(fail, place, waits) -> None:
    fail(errno.EIO, *range(2, 100))
    with pytest.raises(StorageError, match=f"{place} cannot be read: {TRIES} tries failed"):
        read(place)


def test_a_refusal_is_named_at_once(fail, place, waits) -> None:
    fail(errno.EACCES, *range(1, 100))
    with pytest.raises(StorageError, match=rf"{place} cannot be read \(it failed\); check"):
        read(place)
    assert not waits


def test_no_file_stays_open(fail, place) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    fail(errno.EIO, 1, 3)
    read(place)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
