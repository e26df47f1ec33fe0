"""Packing, transcoding and verifying on Dask workers: the same bytes, the same faults."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from milan_pipeline.cluster import dask_client
from milan_pipeline.errors import StorageError
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets import packing, shard_records, transcoding, verification_work
from milan_pipeline.targets.packing import Packing
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.transcoding import Transcoding
from tests.support.cli import run_cli
from tests.support.processes import files_without
from tests.support.servers import losing_a_worker

CODEC = "vector:bytes=3"
RECORDS = ("pack-targets.json", "transcode.json")


def command(stage: str, store: Path, out: Path) -> tuple[object, ...]:
    """The words that pack, or transcode, a store by a fitted codec."""
    places = (store, out) if stage == "transcode" else ("--targets", store, "--out", out)
    return (stage, *places, "--codec", CODEC)


def content(folder: Path) -> dict[str, Any]:
    """Every file, but for records and what a worker, after a stop, may be about to write."""
    found = files_without(folder, *RECORDS)
    return {path: data for path, data in found.items() if not path.endswith(".tmp")}


class Case(NamedTuple):
    """A stage, the store that it reads, and what one process writes in threads."""

    stage: str
    store: Path
    alone: Path

    def run(self, out: Path, *words: object, code: int = 0) -> None:
        run_cli(*command(self.stage, self.store, out), *words, code=code)


@pytest.fixture(scope="module", params=["pack-targets", "transcode"])
def case(
    request: pytest.FixtureRequest, target_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    found = Case(request.param, target_store, tmp_path_factory.mktemp("alone") / "out")
    found.run(found.alone)
    return found


def test_workers_write_the_same_bytes_and_read_the_codec_themselves(
    case: Case,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read_by: list[threading.Thread] = []
    module = transcoding if case.stage == "transcode" else packing
    real = module.read_store_codec

    def read(*args: Any) -> Any:
        read_by.append(threading.current_thread())
        return real(*args)

    monkeypatch.setattr(module, "read_store_codec", read)
    out = tmp_path / "out"
    case.run(out, "--scheduler", scheduler)
    said = capsys.readouterr()
    assert "48 targets" in said.out
    assert "Dask: 2 workers; dashboard: " in said.err
    assert content(out) == content(case.alone)
    assert 1 <= len(read_by) <= 4  # once a worker, of one codec or two
    assert threading.main_thread() not in read_by
    case.run(out, "--scheduler", scheduler)
    assert "nothing to do" in capsys.readouterr().out


def test_a_stop_is_heeded_and_the_run_goes_on(
    case: Case,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work: Any = Transcoding if case.stage == "transcode" else Packing
    real = work.do
    begun: list[object] = []

    def signalling(self: Any, item: Any, stop: Any) -> Any:
        begun.append(item)
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
            stop.signal_name = "the end of the run"  # as end_run will say, in its own time
            stop.raise_if_asked("")
        return real(self, item, stop)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(work, "do", signalling)
        case.run(out, "--scheduler", scheduler, code=75)
    assert "received; finished units are kept" in capsys.readouterr().err
    assert content(case.alone).keys() - content(out).keys()
    if case.stage == "pack-targets":
        listed = load_manifest(str(out), kind="targets", allow_unfinished=True)
        assert not listed.complete
        assert len(listed.shards) < 6
    case.run(out, "--scheduler", scheduler)
    assert content(out) == content(case.alone)


def test_a_store_that_is_away_is_asked_again(
    case: Case,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter([StorageError("away"), StorageError("away")])
    module = transcoding if case.stage == "transcode" else shard_records

    def flaky(*args: Any) -> Any:
        for error in failures:
            raise error
        return open_unit(*args)

    monkeypatch.setattr(module, "open_unit", flaky)
    out = tmp_path / "out"
    case.run(out, "--scheduler", scheduler)
    assert content(out) == content(case.alone)


def test_a_damaged_unit_is_named(
    case: Case,
    scheduler: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Path(shutil.copytree(case.store, tmp_path / "store"))
    damaged = store / "view-01/images-000001/prior/c/0/0"
    damaged.unlink()
    run_cli(*command(case.stage, store, tmp_path / "out"), "--scheduler", scheduler, code=1)
    error = capsys.readouterr().err
    assert f"Error: {damaged} is missing; delete " in error


def test_a_worker_that_sees_another_folder_says_so(
    case: Case,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = {"teacher": {"name": "another"}}
    module = transcoding if case.stage == "transcode" else packing
    monkeypatch.setattr(module, "read_identity", lambda _: other)
    case.run(tmp_path / "out", "--scheduler", scheduler, code=1)
    error = capsys.readouterr().err
    assert "Error: worker inproc://" in error
    assert f"cannot take part ({case.store} holds other targets here than for" in error


def faults(store: Path, capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Verify a damaged store and return what was found."""
    capsys.readouterr()
    run_cli("verify", "--targets", store, "--sample", 8, "--json", *words, code=1)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_verify_finds_the_same_faults_in_the_same_order(
    scheduler: str, target_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path(shutil.copytree(target_store, tmp_path / "store"))
    (store / "view-01/images-000000/prior/c/0/0").unlink()
    (store / "view-00/images-000001/key/c/0").write_bytes(b"no key")
    (store / "done/view-01/images-000002.json").write_text("{")
    (store / "view-00/images-000000/more").write_text("x")
    here = faults(store, capsys)
    assert len(here["faults"]) == 3
    assert here["extra_names"] == 1
    there = faults(store, capsys, "--scheduler", scheduler)
    assert there == here  # the teacher's sample included, which depends on the order
    assert list(there["faults"]) == list(here["faults"])


def test_verify_refuses_a_worker_with_other_images(
    scheduler: str,
    target_store: Path,
    image_shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = load_manifest(str(image_shards), kind="images")
    fewer = type(manifest)(kind="images", folder=manifest.folder, shards=manifest.shards[1:])
    monkeypatch.setattr(verification_work, "load_manifest", lambda *_, **__: fewer)
    run_cli("verify", "--targets", target_store, "--scheduler", scheduler, code=1)
    assert "lists other images there than for the client" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--processes", 2)])
def test_schedulers_that_cannot_be(
    words: tuple[object, ...],
    target_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 0.1)
    nobody = ("--scheduler", "tcp://127.0.0.1:1", *words)
    code = 2 if words else 1
    says = "two ways to do units; give one" if words else "--scheduler tcp://127.0.0.1:1 does not"
    for stage in ("pack-targets", "transcode"):
        run_cli(*command(stage, target_store, tmp_path / stage), *nobody, code=code)
        assert says in capsys.readouterr().err
    run_cli("verify", "--targets", target_store, *nobody, code=code)
    assert says in capsys.readouterr().err
    run_cli("verify", "--targets", target_store, "--scheduler", "tcp://x", code=2)
    assert "--scheduler tcp://x is no address" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(case: Case, tmp_path: Path) -> None:
    flag, out = tmp_path / "killed", tmp_path / "out"
    with losing_a_worker(flag, writes=2) as address:
        case.run(out, "--scheduler", address)
    assert flag.exists()
    assert content(out) == content(case.alone)


@pytest.mark.slow
def test_processes_of_this_machine(case: Case, tmp_path: Path) -> None:
    case.run(tmp_path / "out", "--processes", 2)
    assert content(tmp_path / "out") == content(case.alone)
