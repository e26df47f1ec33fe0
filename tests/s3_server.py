"""A local S3 server that tests stop in the middle of something, and start again."""

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator

import fsspec
import pytest

from milan_pipeline.storage import files, retries

BUCKET = "s3://bucket"


class S3Server:
    """moto's server in a thread. What is stored outlasts a stop; its port does, too."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._make = ThreadedMotoServer
        self._running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._running.start()
        self._host, self._port = self._running.get_host_and_port()
        self.is_up = True

    @property
    def url(self) -> str:
        """What AWS_ENDPOINT_URL says."""
        return f"http://{self._host}:{self._port}"

    def forget(self) -> None:
        """Drop what an earlier test stored: moto keeps it in this process."""
        connection = http.client.HTTPConnection(self._host, self._port)
        with contextlib.closing(connection):
            connection.request("POST", "/moto-api/reset")
            connection.getresponse().read()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self.is_up:
            self.is_up = False
            self._running.stop()
            # Its socket would go on listening, with nobody to answer.
            assert self._running._server is not None
            self._running._server.server_close()

    def start(self) -> None:
        """Answer again, at the same port."""
        if not self.is_up:
            self._running = self._make(ip_address=self._host, port=self._port, verbose=False)
            self._running.start()
            self.is_up = True


class Outage:
    """Stops a server before the n-th action on the store; the first wait starts it again."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self.countdown = 0
        self.actions = 0
        self.refused = 0

    def plan(self, *, after: int) -> None:
        """Stop the server when it has been asked for so many things from now on."""
        self.countdown, self.actions, self.refused = after, 0, 0

    def before_action(self) -> None:
        """Count what is about to be asked of the store."""
        with self._lock:
            self.actions += 1
            self.countdown -= 1
            if self.countdown == 0:
                self._server.stop()

    def wait(self, seconds: float) -> None:  # noqa: ARG002 - as retries calls it
        """Stand in for a wait: the server is back after it."""
        with self._lock:
            self.refused += 1
            self._server.start()


@pytest.fixture
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with an empty bucket, to which the environment leads."""
    pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = S3Server()
    server.forget()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore would try again by itself, and wait
    s3fs.S3FileSystem.clear_instance_cache()
    fsspec.filesystem("s3").mkdir(BUCKET)
    yield server
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def outage(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Outage:
    """What stops the server."""
    planned = Outage(s3_server)
    real: Callable[..., object] = retries.retried

    def counted(action: Callable[[], object], **words: object) -> object:
        planned.before_action()
        return real(action, **words)

    monkeypatch.setattr(files, "retried", counted)
    monkeypatch.setattr(retries, "_wait", planned.wait)
    return planned
