"""Everything that is asked of a remote store is tried again, and named where it is refused."""

from typing import Any

import fsspec
import pytest

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.storage import files
from milan_pipeline.storage.retries import TRIES

URL = "memory://remote/folder/x"


def write(url: str) -> None:
    with storage.atomic_writer(url) as stream:
        stream.write(b"0123456789")


ASKED: dict[str, list[tuple[Any, Any]]] = {
    "info": [(storage.exists, True), (storage.size_of, 10)],
    "ls": [(lambda url: storage.list_names(storage.folder_of(url)), ["x"])],
    "pipe_file": [(lambda url: storage.put_bytes(url, b"0123456789"), None)],
    "put_file": [(write, None)],
    "cat_file": [(storage.read_bytes, b"0123456789")],
}
CASES = [(name, ask, answer) for name, asks in ASKED.items() for ask, answer in asks]
named = pytest.mark.parametrize(
    ("name", "ask", "answer"), CASES, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(CASES)]
)


@pytest.fixture(autouse=True)
def stored() -> None:
    fsspec.filesystem("memory").store.clear()
    storage.put_bytes(URL, b"0123456789")


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch):
    """Make a call of the store's client raise some errors before it works."""

    def plan(name: str, *errors: Exception) -> None:
        left = list(errors)
        kind = type(fsspec.filesystem("memory"))
        real = getattr(kind, name)

        def call(self, *args, **kwargs):
            if left:
                raise left.pop(0)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(kind, name, call)

    return plan


@named
def test_what_passes_is_tried_again(name, ask, answer, fail, waits) -> None:
    fail(name, ConnectionError("gone"), TimeoutError())
    assert ask(URL) == answer
    assert waits == [0.5, 1.0]
    assert storage.read_bytes(URL) == b"0123456789"


@named
def test_what_does_not_pass_is_named(name, ask, answer, fail, waits) -> None:
    fail(name, *[ConnectionError("gone")] * TRIES)
    with pytest.raises(StorageError, match=rf"remote/folder.* cannot be .*{TRIES} tries failed"):
        ask(URL)
    assert len(waits) == TRIES - 1


@named
def test_a_refusal_is_named_at_once(name, ask, answer, fail, waits) -> None:
    fail(name, PermissionError(13, "Access Denied"))
    with pytest.raises(StorageError, match=r"remote/folder.*\(Access Denied\); check who may"):
        ask(URL)
    assert waits == []


def test_an_object_is_put_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(fsspec.filesystem("memory"))
    put: list[tuple[str, bytes]] = []
    monkeypatch.setattr(kind, "pipe_file", lambda _, path, data: put.append((path, data)))
    storage.put_bytes("memory://remote/folder/y", b"new")
    assert put == [("/remote/folder/y", b"new")]


def test_an_object_whose_block_failed_is_not_put() -> None:
    def write_half() -> None:
        with storage.atomic_writer(URL) as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert storage.read_bytes(URL) == b"0123456789"
    assert storage.list_names("memory://remote/folder") == ["x"]


def test_what_is_not_there_is_told_at_once(waits) -> None:
    nothing = "memory://remote/nothing"
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
