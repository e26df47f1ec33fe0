"""Everything that is asked of a remote store is tried again, and named where it is refused."""

from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.storage import files
from milan_pipeline.storage.retries import TRIES
from tests.support.remote import failing, noting, watched


def write(url: str) -> None:
    with storage.atomic_writer(url) as stream:
        stream.write(b"0123456789")


named = pytest.mark.parametrize(
    ("doing", "ask", "answer"),
    [
        ("ask", storage.exists, True),
        ("ask", storage.size_of, 10),
        ("list", lambda url: storage.list_names(storage.folder_of(url)), ["x"]),
        ("put", lambda url: storage.put_bytes(url, b"0123456789"), None),
        ("put", write, None),
        ("read", storage.read_bytes, b"0123456789"),
    ],
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An object of ten bytes."""
    place = watched(tmp_path / "folder/x")
    storage.put_bytes(place, b"0123456789")
    return place


@named
def test_what_passes_is_tried_again(doing, ask, answer, url, waits) -> None:
    with failing(doing, ConnectionError("gone"), TimeoutError()):
        assert ask(url) == answer
    assert waits == [0.5, 1.0]
    assert storage.read_bytes(url) == b"0123456789"


@named
def test_what_does_not_pass_is_named(doing, ask, answer, url, waits) -> None:
    message = rf"/folder.* cannot be .*{TRIES} tries failed"
    with (
        failing(doing, *[ConnectionError("gone")] * TRIES),
        pytest.raises(StorageError, match=message),
    ):
        ask(url)
    assert len(waits) == TRIES - 1


@named
def test_a_refusal_is_named_at_once(doing, ask, answer, url, waits) -> None:
    message = r"/folder.*\(Access Denied\); check who may"
    with (
        failing(doing, PermissionError(13, "Access Denied")),
        pytest.raises(StorageError, match=message),
    ):
        ask(url)
    assert waits == []


def test_an_object_is_put_in_one_request(tmp_path: Path) -> None:
    with noting("put") as puts:
        storage.put_bytes(watched(tmp_path / "y"), b"new")
    assert [(request.path, request.data) for request in puts] == [(str(tmp_path / "y"), b"new")]


def test_an_object_whose_block_failed_is_not_put(url: str) -> None:
    def write_half() -> None:
        with storage.atomic_writer(url) as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert storage.read_bytes(url) == b"0123456789"
    assert storage.list_names(storage.folder_of(url)) == ["x"]


def test_what_is_not_there_is_told_at_once(tmp_path: Path, waits) -> None:
    nothing = watched(tmp_path / "remote/nothing")
    assert not storage.exists(nothing)
    assert storage.list_names(nothing) == []
    with pytest.raises(MissingDataError, match="remote/nothing does not exist"):
        storage.size_of(nothing)
    assert waits == []


@pytest.mark.parametrize("remote", [True, False])
def test_many_files_come_in_order(remote: bool, tmp_path) -> None:
    folder = "memory://remote/many" if remote else str(tmp_path)
    urls = [storage.join(folder, f"{number}") for number in range(300)]
    for number, url in enumerate(urls):
        storage.put_bytes(url, str(number).encode())
    asked = []

    def named_urls():
        for url in urls:
            asked.append(url)
            yield url

    contents = storage.read_many(named_urls())
    assert next(contents) == b"0"
    assert len(asked) == (files.READ_AHEAD if remote else 1)
    assert list(contents) == [str(number).encode() for number in range(1, 300)]
    assert list(storage.read_many([])) == []
    if not remote:
        assert next(storage.read_many([f"file://{urls[7]}"])) == b"7"
    contents = storage.read_many([urls[0], storage.join(folder, "none"), urls[1]])
    assert next(contents) == b"0"
    with pytest.raises(MissingDataError, match="none does not exist"):
        next(contents)
