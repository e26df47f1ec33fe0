"""A store that keeps other bytes than it is sent is found at the first object."""

import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from milan_pipeline import storage
from milan_pipeline.errors import StorageError
from milan_pipeline.storage import write_check
from milan_pipeline.storage.client_errors import named_errors


class Chunked(MemoryFileSystem):  # type: ignore[misc]
    """Keeps the body as boto3 sends it: with the chunk's length before, a checksum behind."""

    protocol = "chunked"

    def pipe_file(self, path: str, value: bytes, **_: object) -> None:
        super().pipe_file(path, b"%x\r\n%b\r\n0\r\n" % (len(value), value))

    def put_file(self, lpath: str, rpath: str, **_: object) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())


class RefusedError(Exception):
    """A client's error of a store that knows no checksums."""

    def __init__(self) -> None:
        super().__init__("A header implies functionality that is not implemented.")
        self.response = {"Error": {"Code": "NotImplemented"}}


@pytest.fixture
def chunked() -> str:
    fsspec.register_implementation("chunked", Chunked, clobber=True)
    return f"chunked://{uuid.uuid4().hex}"


@pytest.mark.parametrize("large", [False, True])
def test_a_body_that_is_stored_with_its_checksum_is_refused_and_deleted(
    chunked: str, *, large: bool
) -> None:
    data = b"{}" * (write_check.COMPARED_BYTES if large else 1)
    with pytest.raises(StorageError, match="set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
        storage.put_bytes(f"{chunked}/manifest.json", data)
    assert not storage.exists(f"{chunked}/manifest.json")


def test_a_file_that_is_stored_with_its_checksum_is_refused(chunked: str) -> None:
    def write() -> None:
        with storage.atomic_writer(f"{chunked}/x.tar") as stream:
            stream.write(bytes(9))

    with pytest.raises(StorageError, match="keeps other bytes than were written"):
        write()


def test_where_the_variable_is_set_another_store_is_advised(
    chunked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(write_check.VARIABLE, "when_required")
    with pytest.raises(StorageError, match="write to another store"):
        storage.put_bytes(f"{chunked}/x", b"1")


def test_only_the_first_object_of_a_bucket_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = MemoryFileSystem.cat_file

    def cat_file(self: MemoryFileSystem, path: str, *args: object, **words: object) -> bytes:
        read.append(path)
        data: bytes = real(self, path, *args, **words)
        return data

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    place = f"memory://{uuid.uuid4().hex}"
    for name in ("empty", "a", "b"):
        storage.put_bytes(f"{place}/{name}", b"" if name == "empty" else b"1")
    assert [path.rpartition("/")[2] for path in read] == ["a"]


def test_a_store_that_knows_no_checksums_is_told_from_a_full_one() -> None:
    def write(error: Exception) -> None:
        with named_errors("s3://bucket/x", "written"):
            raise error

    with pytest.raises(StorageError, match=r"not implemented\.\); set AWS_REQUEST_CHECKSUM"):
        write(RefusedError())
    with pytest.raises(StorageError, match=r"cannot be written \(full\); make room"):
        write(OSError("full"))
