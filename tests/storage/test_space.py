"""Room on a disk: what is free, and what is said where there is none."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from milan_pipeline import storage
from milan_pipeline.errors import StorageError


def full(monkeypatch: pytest.MonkeyPatch, number: int, free_files: int) -> None:
    """Have files be refused with an error, on a file system with so many free inodes."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    status = SimpleNamespace(f_files=24, f_favail=free_files)
    monkeypatch.setattr("os.statvfs", lambda _: status)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5000))
    monkeypatch.setattr(Path, "open", refuse)


def test_a_file_system_without_inodes_says_that_files_are_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, errno.ENOSPC, 0)
    with pytest.raises(StorageError, match="has no inodes left for more files: delete files there"):
        storage.put_bytes(str(tmp_path / "new" / "x"), b"1")


def test_a_full_disk_is_not_said_to_lack_inodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, errno.ENOSPC, 9)
    with pytest.raises(StorageError, match=r"No space left on device\); make room"):
        storage.put_bytes(str(tmp_path / "x"), b"1")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EFBIG, "fewer --samples-per-shard"), (errno.ENAMETOOLONG, "give a shorter name")],
)
def test_a_file_too_large_and_a_name_too_long_have_remedies_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    full(monkeypatch, number, 9)
    with pytest.raises(StorageError, match=remedy):
        storage.put_bytes(str(tmp_path / "x"), b"1")


def test_a_place_where_no_folder_can_be_made_is_to_be_changed() -> None:
    with pytest.raises(StorageError, match=r"/proc/x/y cannot be written .*; give another place"):
        storage.put_bytes("/proc/x/y", b"1")


def test_a_quota_may_be_of_bytes_or_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, errno.EDQUOT, 9)
    with pytest.raises(StorageError, match="a quota of bytes or of files is used up"):
        storage.put_bytes(str(tmp_path / "x"), b"1")


def test_room_for_files_is_that_of_the_nearest_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def statvfs(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_files=24, f_favail=7)

    monkeypatch.setattr("os.statvfs", statvfs)
    assert storage.free_files(str(tmp_path / "not" / "yet")) == 7
    assert asked == [tmp_path]
    assert storage.free_files("memory://bucket") is None


def test_a_file_system_that_counts_no_files_has_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_files=0, f_favail=0))
    assert storage.free_files(str(tmp_path)) is None
