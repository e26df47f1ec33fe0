"""Shards and stores behind real servers: HTTP with ranges, GS and S3."""

import dataclasses
import functools
import http.server
import re
import threading

import fsspec
import pytest

from milan_pipeline import storage
from milan_pipeline.data.pairs import read_pairs
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.storage.range_stream import PIECE_BYTES
from milan_pipeline.storage.retries import TRIES
from tests.support.cli import run_cli
from tests.support.pairs import EXPECTED, places, write_world

# fsspec leaves its clients' sessions to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves ranges, silently; fails each third request with 503 if `flaky`."""

    flaky = False
    requests = 0

    def do_GET(self):
        type(self).requests += 1
        if self.flaky and self.requests % 3 == 0:
            self.send_error(503)
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None:
            super().do_GET()
            return
        first, last = int(match[1]), int(match[2])
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
            file.seek(first)
            data = file.read(last - first + 1)
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):  # noqa: A002
        pass


@pytest.fixture(params=[False, True], ids=["steady", "flaky"])
def web(request, tmp_path):
    pytest.importorskip("aiohttp")
    handler = type("Handler", (RangeHandler,), {"flaky": request.param})
    make = functools.partial(handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def moved(pairs, url):
    """The same pairs, said to lie elsewhere."""

    def at(shards):
        return dataclasses.replace(shards, head=dataclasses.replace(shards.head, folder=url))

    targets = tuple(map(at, pairs.targets))
    return dataclasses.replace(pairs, images=at(pairs.images), targets=targets)


def test_http(web, tmp_path, waits):
    url, handler = web
    pairs = moved(write_world(str(tmp_path)), url)
    assert [(pair.image, *pair.targets) for pair in read_pairs(pairs, places())] == EXPECTED
    assert bool(waits) == handler.flaky
    with pytest.raises(MissingDataError, match="nothing does not exist"):
        storage.read_bytes(f"{url}/nothing")


class PlainHandler(RangeHandler):
    """Sends files whole, whatever is asked for."""

    do_GET = http.server.SimpleHTTPRequestHandler.do_GET


def test_a_web_server_without_ranges(tmp_path):
    pytest.importorskip("aiohttp")
    data = bytes(range(256)) * (PIECE_BYTES // 256 + 1)
    (tmp_path / "x").write_bytes(data)
    make = functools.partial(PlainHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        with storage.open_read(url) as stream:
            assert stream.read(5) == data[:5]
            stream.seek(0)
            assert stream.read() == data
        with pytest.raises(StorageError, match="its server must know ranges"):
            storage.read_bytes(url, 3, 4)
        server.shutdown()


def test_a_web_server_that_is_gone_is_named(tmp_path, waits):
    pytest.importorskip("aiohttp")
    with pytest.raises(StorageError, match=f"127.0.0.1:1/x cannot be read: {TRIES} tries failed"):
        storage.read_bytes("http://127.0.0.1:1/x", 0, 5)


def test_a_store_on_a_web_server_is_packed(web, target_store, target_shards, tmp_path, waits):
    url, handler = web
    (tmp_path / "targets.zarr").symlink_to(target_store)
    run_cli(
        "pack-targets", "--targets", f"{url}/targets.zarr", "--out", tmp_path / "out",
        "--workers", 0,
    )  # fmt: skip
    for tar in target_shards.rglob("*.tar"):
        packed = tmp_path / "out" / tar.relative_to(target_shards)
        assert packed.read_bytes() == tar.read_bytes()
    assert bool(waits) == handler.flaky
    run_cli("pack-targets", "--targets", target_store, "--out", f"{url}/new", code=1)


class GoogleServer(http.server.HTTPServer):
    """Says nothing of clients that close before they have read all, as gcsfs does."""

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def google(monkeypatch):
    """The URL of a bucket on an emulator of Google's storage, to which the environment leads."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    core = pytest.importorskip("gcsfs.core")
    stored = emulator.Storage(use_memory_fs=True)
    emulator.buckets.create_bucket("bucket", stored)
    make = functools.partial(emulator.RequestHandler, stored)
    # What gcsfs adds for other kinds of bucket asks Google itself.
    fsspec.register_implementation("gs", core.GCSFileSystem, clobber=True)
    with GoogleServer(("127.0.0.1", 0), make) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        core.GCSFileSystem.clear_instance_cache()
        yield "gs://bucket"
        server.shutdown()
    core.GCSFileSystem.clear_instance_cache()


def test_gs(google):
    pairs = write_world(f"{google}/shards")
    assert [(pair.image, *pair.targets) for pair in read_pairs(pairs, places())] == EXPECTED
    storage.put_bytes(f"{google}/a/b", b"0123456789")
    storage.put_bytes(f"{google}/a/c/d", b"")
    assert storage.read_bytes(f"{google}/a/b", 3, 4) == b"3456"
    assert storage.list_names(f"{google}/a") == ["b", "c"]
    assert storage.list_names(f"{google}/nothing") == []
    assert storage.size_of(f"{google}/a/b") == 10
    assert storage.exists(f"{google}/a/b")
    assert not storage.exists(f"{google}/a/x")
    with pytest.raises(MissingDataError, match="nothing does not exist"):
        storage.read_bytes(f"{google}/nothing", 0, 1)
    with pytest.raises(StorageError, match=r"no-bucket/x cannot be written.*create its bucket"):
        storage.put_bytes("gs://no-bucket/x", b"1")


def test_s3(monkeypatch):
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("s3://bucket")
        pairs = write_world("s3://bucket/shards")
        assert [(pair.image, *pair.targets) for pair in read_pairs(pairs, places())] == EXPECTED
        with pytest.raises(MissingDataError, match="nothing does not exist"):
            storage.read_bytes("s3://bucket/nothing", 0, 1)
    finally:
        running.stop()
