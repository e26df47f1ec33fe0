"""Packing, transcoding and verifying on Dask workers: the same bytes, the same faults."""

import contextlib
import dataclasses
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask
import pytest

from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.storage.retries import TRIES
from milan_pipeline.targets.layout import read_identity, root_bytes
from tests.support.cli import run_cli
from tests.support.disturbances import stopped_and_held
from tests.support.processes import files_without
from tests.support.remote import Action, Request, answering, failing, watched
from tests.support.servers import IMPATIENT, losing_a_worker

CODEC = "joint:bytes=3"
RECORDS = ("pack-targets.json", "transcode.json")


def command(stage: str, store: object, out: object) -> tuple[object, ...]:
    """The words that pack, or transcode, a store by a fitted codec."""
    places = (store, out) if stage == "transcode" else ("--targets", store, "--out", out)
    return (stage, *places, "--codec", CODEC)


def content(folder: Path) -> dict[str, Any]:
    """Every file, but for records and what a worker, after a stop, may be about to write."""
    found = files_without(folder, *RECORDS)
    return {path: data for path, data in found.items() if not path.endswith(".tmp")}


def is_client() -> bool:
    """Whether this is not a worker, which is another thread here."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def for_workers(path: Path, data: bytes) -> Iterator[None]:
    """Have workers find other bytes in a file than the client does."""

    def other(request: Request, action: Action) -> Any:
        is_it = request.doing == "read" and request.path == str(path)
        return data if is_it and not is_client() else action()

    with answering(other):
        yield


class Case(NamedTuple):
    """A stage, the store that it reads, and what one process writes in threads."""

    stage: str
    store: Path
    alone: Path

    def run(self, out: object, *words: object, code: int = 0) -> None:
        run_cli(*command(self.stage, self.store, out), *words, code=code)

    def run_remote(self, scheduler: str, out: Path, *, code: int = 0) -> None:
        """Run it on workers, from one remote store to another."""
        words = command(self.stage, watched(self.store), watched(out))
        run_cli(*words, "--scheduler", scheduler, code=code)


@pytest.fixture(scope="module", params=["pack-targets", "transcode"])
def case(
    request: pytest.FixtureRequest, target_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    found = Case(request.param, target_store, tmp_path_factory.mktemp("alone") / "out")
    found.run(found.alone)
    return found


def test_workers_write_the_same_bytes_and_read_the_codec_themselves(
    case: Case, scheduler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_by: Counter[tuple[threading.Thread, str]] = Counter()

    def note(request: Request, action: Action) -> Any:
        if request.doing == "read" and "/codec" in request.path and not is_client():
            read_by[threading.current_thread(), request.path] += 1
        return action()

    out = tmp_path / "out"
    with answering(note):
        case.run_remote(scheduler, out)
    said = capsys.readouterr()
    assert "48 targets" in said.out
    assert "Dask: 2 workers; dashboard: " in said.err
    assert content(out) == content(case.alone)
    assert set(read_by.values()) == {1}
    case.run_remote(scheduler, out)
    assert "nothing to do" in capsys.readouterr().out


def test_a_stop_is_heeded_and_the_run_goes_on(
    case: Case, scheduler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with stopped_and_held("SIGUSR1"):
        case.run_remote(scheduler, out, code=75)
        assert content(case.alone).keys() - content(out).keys()
    assert "received; finished units are kept" in capsys.readouterr().err
    if case.stage == "pack-targets":
        listed = load_manifest(str(out), kind="targets", allow_unfinished=True)
        assert not listed.complete
        assert len(listed.shards) < 6
    case.run_remote(scheduler, out)
    assert content(out) == content(case.alone)


def test_a_store_that_is_away_is_asked_again(case: Case, scheduler: str, tmp_path: Path) -> None:
    out, away = tmp_path / "out", [TimeoutError("away") for _ in range(2 * TRIES)]
    with failing("read", *away, at="view-01/images-000000/codes/c/") as left:
        case.run_remote(scheduler, out)
    assert left == []
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
    case: Case, scheduler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = read_identity(str(case.store))
    other = root_bytes(identity | {"teacher": identity["teacher"] | {"name": "another"}})
    with for_workers(case.store / "zarr.json", other):
        case.run_remote(scheduler, tmp_path / "out", code=1)
    error = capsys.readouterr().err
    assert "Error: worker inproc://" in error
    assert f"cannot take part ({watched(case.store)} holds other targets here than for" in error


def faults(store: Path, capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Verify a damaged store and return what was found."""
    capsys.readouterr()
    run_cli("verify", store, "--sample", 8, "--json", *words, code=1)
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
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = load_manifest(str(image_shards), kind="images")
    dataclasses.replace(manifest, folder=str(tmp_path), shards=manifest.shards[1:]).save()
    words = (target_store, "--images", watched(image_shards))
    with for_workers(image_shards / "manifest.json", (tmp_path / "manifest.json").read_bytes()):
        run_cli("verify", *words, "--scheduler", scheduler, code=1)
    assert "lists other images there than for the client" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--processes", 2)])
def test_schedulers_that_cannot_be(
    words: tuple[object, ...],
    target_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nobody = ("--scheduler", "tcp://127.0.0.1:1", *words)
    code = 2 if words else 1
    says = "two ways to do units; give one" if words else "--scheduler tcp://127.0.0.1:1 does not"
    commands = [
        command("pack-targets", target_store, tmp_path / "packed"),
        command("transcode", target_store, tmp_path / "transcoded"),
        ("verify", target_store),
    ]
    for command_words in commands:
        with dask.config.set(IMPATIENT):
            run_cli(*command_words, *nobody, code=code)
        assert says in capsys.readouterr().err
    run_cli("verify", target_store, "--scheduler", "tcp://x", code=2)
    assert "--scheduler tcp://x is no address" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(case: Case, tmp_path: Path) -> None:
    flag, out = tmp_path / "killed", tmp_path / "out"
    with losing_a_worker(flag, writes=2) as address:
        case.run(watched(out), "--scheduler", address)
    assert flag.exists()
    assert content(out) == content(case.alone)


@pytest.mark.slow
def test_processes_of_this_machine(case: Case, tmp_path: Path) -> None:
    case.run(tmp_path / "out", "--processes", 2)
    assert content(tmp_path / "out") == content(case.alone)
