"""A proxy before an S3 server that fails now and then, in the ways that networks and stores do."""

import collections
import contextlib
import http.client
import http.server
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

WAYS = ("unavailable", "reset", "answer lost", "truncated", "stalled")
SHARES = (0.06, 0.04, 0.02, 0.06, 0.003)
STALL_SECONDS = 60.0
HOP = ("connection", "transfer-encoding", "keep-alive")
NO_ANSWER = struct.pack("ii", 1, 0)
"""Closing a socket that lingers for no time resets its connection."""


class Flapping(http.server.ThreadingHTTPServer):
    """Passes requests on to another server, and spoils some by chance.

    Attributes:
        spoilt: how many, by way.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, url: str, chance: random.Random) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(url).netloc
        self.spoilt: collections.Counter[str] = collections.Counter()
        self.over = threading.Event()
        self._chance = chance
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def way(self) -> str:
        """Draw how to spoil a request; empty for one that is passed on."""
        with self._lock:
            [way] = self._chance.choices(("", *WAYS), (1 - sum(SHARES), *SHARES))
            self.spoilt[way] += bool(way)
        return way

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that have gone."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Flapping

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        way = self.server.way()
        if way == "unavailable":
            self._send(503, [], b"<Error><Code>SlowDown</Code></Error>")
            return
        if way == "reset":
            self._reset()
            return
        if way == "stalled":
            self.server.over.wait(STALL_SECONDS)
            self._reset()
            return
        behind = http.client.HTTPConnection(self.server.behind)
        with contextlib.closing(behind):
            behind.request(self.command, self.path, body, dict(self.headers))
            response = behind.getresponse()
            data = response.read()
            headers = [(k, v) for k, v in response.getheaders() if k.lower() not in HOP]
        if way == "answer lost":
            self._reset()
            return
        self._send(response.status, headers, data, cut=way == "truncated")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

    def _send(
        self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        names = [name.lower() for name, _ in headers]
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_ANSWER)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def flapping(url: str, chance: random.Random) -> Iterator[Flapping]:
    """Have a proxy before a server for a while."""
    proxy = Flapping(url, chance)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()
