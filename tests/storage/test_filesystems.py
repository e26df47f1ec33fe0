"""URLs lead to their clients, and what these raise becomes one sentence of ours."""

import importlib
import sys

import pytest

from milan_pipeline import storage
from milan_pipeline.errors import DataError, MissingDataError, StorageError, reason_of
from milan_pipeline.storage.client_errors import named_errors
from milan_pipeline.storage.filesystems import File, resolve, scheme_of


class NoCredentialsError(Exception):
    """Called as botocore calls it."""


class HttpError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status\n{status}")
        self.status = status


@pytest.mark.parametrize(
    ("url", "protocol", "path"),
    [
        ("s3://bucket/a/b", "s3", "bucket/a/b"),
        ("gs://bucket/a/b", "gs", "bucket/a/b"),
        ("https://host/a%20b", "https", "https://host/a%20b"),
        ("file:///a/b", "file", "/a/b"),
        ("/a/b", "file", "/a/b"),
    ],
)
def test_a_url_leads_to_its_client_which_keeps_no_listings(
    url: str, protocol: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if protocol == "gs":
        pytest.importorskip("gcsfs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")  # no one is asked
    if protocol in ("s3", "https"):
        pytest.importorskip({"s3": "s3fs", "https": "aiohttp"}[protocol])
    file = resolve(url)
    assert protocol in file.filesystem.protocol
    assert file.path == path
    assert file.is_local == (protocol == "file")
    assert file.is_local or not file.filesystem.dircache.use_listings_cache


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("s3://bucket/x", "s3fs", "s3"),
        ("gs://bucket/x", "gcsfs", "gs"),
        ("http://host/x", "fsspec.implementations.http", "http"),
    ],
)
def test_a_client_that_is_not_installed_is_named_with_its_extra(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, url.split(":", maxsplit=1)[0], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StorageError, match=rf"{url}.*run `pip install 'milan-pipeline\[{extra}\]'"):
        resolve(url)


def test_scheme_of() -> None:
    assert scheme_of("S3://bucket/x") == "s3"
    assert scheme_of("pipe:cat x") == "pipe"
    assert scheme_of("/a/b") == ""


@pytest.mark.parametrize(
    ("error", "doing", "kind", "message"),
    [
        (FileNotFoundError("x"), "read", MissingDataError, "^URL does not exist; check the path$"),
        (FileNotFoundError("no\nbucket"), "written", StorageError,
         r"^URL cannot be written \(no bucket\); create its bucket or folder, or correct it$"),
        (PermissionError(13, "Denied"), "read", StorageError, r"read \(Denied\); check who may"),
        (HttpError(403), "listed", StorageError, r"cannot be listed \(status 403\); check who may"),
        (OSError("Forbidden: https://x"), "read", StorageError, "; check who may access it"),
        (NoCredentialsError(), "read", StorageError, r"\(NoCredentialsError\); give credentials"),
        (OSError(28, "No space"), "written", StorageError, r"\(No space\); make room or fix it$"),
        (RuntimeError("odd"), "read", StorageError, r"\(odd\); check the path$"),
        (DataError("ours"), "read", DataError, "^ours$"),
    ],
)  # fmt: skip
def test_what_a_client_raises_becomes_one_sentence(error, doing, kind, message) -> None:
    with pytest.raises(kind, match=message) as caught, named_errors("URL", doing):
        raise error
    assert "\n" not in str(caught.value)


def test_reason_of() -> None:
    assert reason_of(OSError(2, "No such file", "x")) == "No such file"
    assert reason_of(ValueError("a\n b")) == "a b"
    assert reason_of(TimeoutError()) == "TimeoutError"


class Web:
    """Calls a file missing whatever it was that failed, as fsspec's HTTP client does."""

    protocol = ("http", "https")

    def __init__(self, cause: Exception | None) -> None:
        self.cause = cause

    def info(self, path: str) -> None:
        raise FileNotFoundError(path) from self.cause


@pytest.mark.parametrize("cause", [HttpError(503), HttpError(403), ConnectionError("gone")])
def test_a_web_file_is_not_missing_where_its_server_failed(cause: Exception, waits) -> None:
    with pytest.raises(StorageError):
        File("http://host/x", Web(cause), "http://host/x").size()


def test_a_file_that_is_not_there_is_missing() -> None:
    for filesystem in (Web(HttpError(404)), Web(None)):
        with pytest.raises(MissingDataError):
            File("http://host/x", filesystem, "http://host/x").size()
    with pytest.raises(MissingDataError):
        File("bucket/x", Web(ConnectionError("gone")), "bucket/x").size()


def test_names_leave_out_the_mark_of_a_folder() -> None:
    class Store:
        protocol = ("s3",)

        def ls(self, path: str, *, detail: bool) -> list[dict[str, str]]:
            assert detail
            return [{"name": n} for n in (path, f"{path}/", f"{path}/a.json", f"{path}/sub/")]

    assert File("s3://bucket/folder", Store(), "bucket/folder").names() == {"a.json", "sub"}


def test_names_in_a_page_are_unquoted() -> None:
    class Page:
        protocol = ("http", "https")

        def ls(self, path: str, *, detail: bool) -> list[dict[str, str]]:
            assert detail
            return [{"name": f"{path}/{n}"} for n in ("a%20b.json", "sub/", "?C=M;O=A")]

    url = "http://host/folder"
    assert File(url, Page(), url).names() == {"a b.json", "sub"}


def test_a_web_server_is_not_written_to() -> None:
    with pytest.raises(StorageError, match="http://host/x cannot be written: web servers are only"):
        storage.put_bytes("http://host/x", b"1")
    with (
        pytest.raises(StorageError, match="https://host/x cannot be written"),
        storage.atomic_writer("https://host/x"),
    ):
        pass


@pytest.mark.parametrize("url", ["s3://", "s3:///x.tar", "s3:/bucket/x.tar", "gs:///x.tar"])
def test_a_url_without_a_bucket_is_refused_at_once(url: str) -> None:
    with pytest.raises(StorageError, match=r"names no bucket; give (s3|gs)://BUCKET/PATH"):
        storage.read_bytes(url)
