"""A local S3 server that tests stop in the middle of something, and start again.

A Dask cluster of processes, and how to kill one of them at work.

Slurm's commands as small scripts that write down how they were called.
"""

import contextlib
import hashlib
import http.client
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import fsspec
import pytest
from distributed import LocalCluster, Worker, WorkerPlugin

from milan_pipeline import storage
from milan_pipeline.cluster.dask_client import NO_PROFILER
from milan_pipeline.core.schema import parsed
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.storage import retries
from milan_pipeline.targets.units import Mark, read_marks
from tests.support.remote import Action, Request, WatchedFileSystem

BUCKET = "s3://bucket"
IMPATIENT = {"distributed.comm.timeouts.connect": "100ms"}
"""Dask's configuration where nobody will answer."""


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


class Outage(logging.Handler):
    """Stops a server before the n-th action on the store; it is back once one has failed.

    It listens to what the library logs of each action, and of each that it will try again.
    """

    def __init__(self, server: S3Server) -> None:
        super().__init__()
        self._server = server
        self.countdown = 0
        self.actions = 0
        self.refused = 0

    def plan(self, *, after: int) -> None:
        """Stop the server when it has been asked for so many things from now on."""
        self.countdown, self.actions, self.refused = after, 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count what is about to be asked of the store, or has failed."""
        if record.levelno != logging.DEBUG:
            self.refused += 1
            self._server.start()
            return
        self.actions += 1
        self.countdown -= 1
        if self.countdown == 0:
            self._server.stop()


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
def outage(s3_server: S3Server) -> Iterator[Outage]:
    """What stops the server."""
    planned, logger = Outage(s3_server), logging.getLogger(retries.__name__)
    level = logger.level
    logger.addHandler(planned)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield planned
    logger.propagate = True
    logger.setLevel(level)
    logger.removeHandler(planned)


class Kill(WorkerPlugin):
    """Kill one worker process, once, when it is about to put its n-th object of a unit."""

    def __init__(self, flag: Path, writes: int) -> None:
        self.flag = flag
        self.writes = writes

    def setup(self, worker: Worker) -> None:
        del worker
        WatchedFileSystem.answers.append(self._answer)

    def _answer(self, request: Request, action: Action) -> Any:
        self.writes -= request.doing == "put" and "/view-" in request.path
        if self.writes == 0 and not self.flag.exists():
            self.flag.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return action()


@contextlib.contextmanager
def losing_a_worker(flag: Path, writes: int) -> Iterator[str]:
    """Start two worker processes, one of which will be killed; yield the scheduler's address."""
    with (
        dask.config.set(NO_PROFILER),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        cluster.get_client() as client,
    ):  # fmt: skip
        client.register_plugin(Kill(flag, writes))
        yield cluster.scheduler_address


CALLED = 'echo "${0##*/} $*" >> "$FAKE_SLURM/calls"\n'
SBATCH = """[ ! -e "$FAKE_SLURM/refuse" ] || { cat "$FAKE_SLURM/refuse" >&2; exit 1; }
echo $((100 + $(grep -c ^sbatch "$FAKE_SLURM/calls")))
"""


class FakeSlurm:
    """A folder for the PATH, and what its commands were asked and answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bodies = {"sbatch": SBATCH, "squeue": 'cat "$FAKE_SLURM/queue"\n', "scontrol": ""}
        for name, body in bodies.items():
            script = folder / name
            script.write_text(f"#!/bin/sh\n{CALLED}{body}")
            script.chmod(0o755)
        self.queue = []

    @property
    def calls(self) -> list[str]:
        """The command lines so far."""
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def queue(self) -> list[str]:
        """What squeue says."""
        return (self.folder / "queue").read_text().splitlines()

    @queue.setter
    def queue(self, lines: list[str]) -> None:
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in lines))

    @property
    def refuse(self) -> str:
        """Why sbatch refuses everything."""
        return (self.folder / "refuse").read_text()

    @refuse.setter
    def refuse(self, reason: str) -> None:
        (self.folder / "refuse").write_text(reason)


def images_of(folder: object) -> list[str]:
    return [shard.sha256 for shard in load_manifest(str(folder), kind="images").shards]


def tars_of(folder: object) -> list[tuple[str, str]]:
    """Name and SHA-256 of the tars that lie there."""
    manifest = load_manifest(str(folder), kind="targets")
    found = [
        (shard.name, hashlib.sha256(storage.read_bytes(manifest.url_of(shard))).hexdigest())
        for shard in manifest.shards
    ]
    assert [sha256 for _, sha256 in found] == [shard.sha256 for shard in manifest.shards]
    return found


def objects_of(store: object) -> dict[str, bytes]:
    """The bytes of every object of every unit, and of the marks that list them."""
    paths = ["zarr.json"]
    for mark_path in read_marks(str(store), 2):
        mark = parsed(storage.read_bytes(storage.join(str(store), mark_path)), Mark)
        unit = mark_path.removeprefix("done/").removesuffix(".json")
        paths += [mark_path, *(f"{unit}/{path}" for path in mark.objects)]
    return {path: storage.read_bytes(storage.join(str(store), path)) for path in paths}
