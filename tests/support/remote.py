"""A remote store whose objects are local files, and which does with a request what a test says.

`watched:///tmp/x` is the file `/tmp/x`, which the program takes for an object of a remote store. So
a stage can be run on it, its output is read from the folder, and no code of ours is replaced.
"""

import contextlib
import functools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from milan_pipeline import storage


class Request(NamedTuple):
    """What is asked of the store: "read", "put", "list" or "ask" (whether it is there)."""

    doing: str
    path: str
    start: int = 0
    length: int | None = None
    data: bytes = b""


Action = Callable[[], Any]
Answer = Callable[[Request, Action], Any]


class WatchedFileSystem(LocalFileSystem):  # type: ignore[misc]
    """Asks the answers, the newest first, what is to be done; the last action is the real one."""

    protocol = "watched"
    local_file = False
    answers: ClassVar[list[Answer]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        path = path.removeprefix("watched://")  # which old releases of fsspec leave there
        return str(super()._strip_protocol(path))

    def _do(self, request: Request, action: Action) -> Any:
        for answer in list(self.answers):
            action = functools.partial(answer, request, action)
        return action()

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> Any:
        length = None if end is None else end - (start or 0)
        request = Request("read", path, start or 0, length)
        return self._do(request, lambda: super(WatchedFileSystem, self).cat_file(path, start, end))

    def get_file(self, path: str, into: Any, *_: Any, **__: Any) -> Any:
        with self._do(Request("read", path), lambda: Path(path).open("rb")) as file:
            shutil.copyfileobj(file, into)

    def pipe_file(self, path: str, data: bytes, *_: Any, **__: Any) -> None:
        self._do(Request("put", path, data=data), lambda: _put(Path(path), data))

    def put_file(self, source: str, path: str, *_: Any, **__: Any) -> None:
        self.pipe_file(path, Path(source).read_bytes())

    def info(self, path: str, **_: Any) -> Any:
        return self._do(Request("ask", path), lambda: super(WatchedFileSystem, self).info(path))

    def ls(self, path: str, detail: bool = False, **_: Any) -> Any:
        def listed() -> list[Any]:
            names = [str(place) for place in Path(path).iterdir()]
            return (
                [super(WatchedFileSystem, self).info(name) for name in names] if detail else names
            )

        return self._do(Request("list", path), listed)


def _put(path: Path, data: bytes) -> None:
    """Write an object as stores do: nobody sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    temporary.write_bytes(data)
    temporary.replace(path)


fsspec.register_implementation("watched", WatchedFileSystem)


def watched(path: object) -> str:
    """Return the URL of a local path in the store."""
    return f"watched://{path}"


@functools.cache
def _put_first() -> None:
    """Put an object before anybody listens: the first one that a process puts is read back."""
    with tempfile.TemporaryDirectory() as folder:
        storage.put_bytes(watched(f"{folder}/first"), b"first")


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[None]:
    """Have a function answer each request; it is given the request and what to call to do it."""
    _put_first()
    WatchedFileSystem.answers.append(answer)
    try:
        yield
    finally:
        WatchedFileSystem.answers.remove(answer)


@contextlib.contextmanager
def noting(doing: str) -> Iterator[list[Request]]:
    """Note the requests of a kind."""
    noted: list[Request] = []

    def note(request: Request, action: Action) -> Any:
        if request.doing == doing:
            noted.append(request)
        return action()

    with answering(note):
        yield noted


@contextlib.contextmanager
def failing(doing: str, *errors: Exception, at: str = "") -> Iterator[list[Exception]]:
    """Raise some errors, one a request of a kind for such a path, before the store works again."""
    left = list(errors)

    def fail(request: Request, action: Action) -> Any:
        if request.doing == doing and at in request.path and left:
            raise left.pop(0)
        return action()

    with answering(fail):
        yield left
