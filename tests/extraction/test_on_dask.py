"""Extraction on Dask workers: equal bytes whoever did what, and what happens when things fail."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from milan_pipeline.cluster import dask_client
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.extraction import on_dask
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.teacher.teacher import Teacher
from tests.support.cli import run_cli
from tests.support.clip import write_tiny_clip
from tests.support.processes import files_without
from tests.support.servers import losing_a_worker

Extract = Callable[..., Path]

RECORD = "extract-targets.json"


@pytest.fixture
def extract(image_shards: Path, tiny_clip: Path, target_store: Path, tmp_path: Path) -> Extract:
    precision = read_identity(str(target_store))["teacher"]["precision"]

    def run(*words: object, images: Path = image_shards, code: int = 0) -> Path:
        out = tmp_path / "targets.zarr"
        run_cli(
            "extract-targets", "--images", images, "--out", out, "--teacher",
            f"local-dir:{tiny_clip}", "--batch-size", 4, "--views", 2,
            "--precision", precision, *words, code=code,
        )  # fmt: skip
        return out

    return run


def reports(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(store.glob("progress/*.json"))]


def test_any_worker_gives_the_same_bytes(
    scheduler: str,
    extract: Extract,
    target_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded: list[object] = []
    real = Teacher.load

    def load(*args: Any, **settings: Any) -> Teacher:
        loaded.append(args)
        return real(*args, **settings)

    monkeypatch.setattr(Teacher, "load", load)
    out = extract("--scheduler", scheduler)
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    captured = capsys.readouterr()
    assert "6 units, 6 units done now, 48 targets, 0 skipped" in captured.out
    assert "Dask: 2 workers; dashboard: " in captured.err
    said = reports(out)
    assert len(loaded) == 1 + len(said)  # the client's, and each worker's
    assert sum(report["units_done"] for report in said) == 6
    assert sum(report["images_done"] for report in said) == 48
    assert {report["state"] for report in said} == {"done"}
    assert all(report["name"].startswith("single-worker-") for report in said)
    assert json.loads((out / RECORD).read_text())["state"] == "done"


def test_workers_that_live_on_begin_anew_for_another_teacher(
    scheduler: str, extract: Extract, tiny_clip: Path, tmp_path: Path
) -> None:
    """Its weights are replaced under the same path between two runs."""
    clip = tmp_path / "clip"
    shutil.copytree(tiny_clip, clip)
    words = ("--scheduler", scheduler, "--teacher", f"local-dir:{clip}")
    extract(*words)
    write_tiny_clip(clip, seed=5)
    out = extract(*words, "--overwrite")
    identity_hash = content_hash(read_identity(str(out)))
    marks = [json.loads(path.read_text()) for path in out.glob("done/*/*.json")]
    assert {mark["identity_hash"] for mark in marks} == {identity_hash}


def test_a_worker_without_memory_says_what_helps(
    scheduler: str,
    extract: Extract,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried: list[object] = []

    def full(*_: object) -> None:
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.4 GiB")

    monkeypatch.setattr("milan_pipeline.extraction.loop.compute", full)
    extract("--scheduler", scheduler, code=1)
    assert "give --batch-size 2 or less" in capsys.readouterr().err
    assert len(tried) == 6  # each unit once


def test_a_part_on_workers(
    scheduler: str, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    out = extract("--scheduler", scheduler, "--part", "1/4")
    assert "2 units done now; 4 of all 6 units are left to others" in capsys.readouterr().out
    assert {report["name"].rsplit("-", 1)[0] for report in reports(out)} == {
        "part-001-of-004-worker"
    }


def test_workers_take_the_codec_that_was_fitted_once(scheduler: str, extract: Extract) -> None:
    out = extract("--codec", "vector:bytes=4")
    alone = files_without(out, RECORD)
    for name in ("done", "view-00", "view-01"):
        shutil.rmtree(out / name)
    extract("--codec", "vector:bytes=4", "--scheduler", scheduler)
    assert {report["name"] for report in reports(out)} > {"single"}
    assert files_without(out, RECORD) == alone


@pytest.fixture
def shards(image_shards: Path, tmp_path: Path) -> Path:
    """A copy of the image shards, to be damaged."""
    return Path(shutil.copytree(image_shards, tmp_path / "shards"))


def test_a_unit_that_fails_does_not_stop_the_others(
    scheduler: str,
    extract: Extract,
    shards: Path,
    target_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = shards / "images-000001.tar"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:2000])
    out = extract("--scheduler", scheduler, images=shards, code=1)
    error = capsys.readouterr().err
    assert "2 of 6 units failed: " in error
    assert "view-00/images-000001 (" in error
    assert "images-000001.tar is truncated or damaged" in error
    assert len(list(out.glob("done/*/*.json"))) == 4
    assert "failed" in {report["state"] for report in reports(out)}
    damaged.write_bytes(whole)
    extract("--scheduler", scheduler, images=shards)
    assert files_without(out, RECORD) == files_without(target_store, RECORD)


def test_what_may_pass_is_tried_again(
    scheduler: str, extract: Extract, target_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([StorageError("away"), OSError("away")])

    def flaky(*args: Any) -> Any:
        error = next(failures, None)
        if error is not None:
            raise error
        return extract_units(*args)

    monkeypatch.setattr(on_dask, "extract_units", flaky)
    out = extract("--scheduler", scheduler)
    assert next(failures, None) is None
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    assert {report["state"] for report in reports(out)} == {"done"}


def test_what_fails_again_and_again_ends_the_run(
    scheduler: str,
    extract: Extract,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object) -> Any:
        raise StorageError("the disk is full")

    monkeypatch.setattr(on_dask, "extract_units", broken)
    monkeypatch.setattr(on_dask, "FAILURES_IN_A_ROW", 3)
    extract("--scheduler", scheduler, code=1)
    assert "of 6 units failed: view-0" in capsys.readouterr().err


def test_a_worker_that_lacks_something_says_so(
    scheduler: str,
    extract: Extract,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(url: str) -> Any:
        raise MissingDataError(f"{url} holds no target store")

    monkeypatch.setattr(on_dask, "read_identity", missing)
    # Another batch size, so that no worker has loaded a teacher for this yet.
    extract("--scheduler", scheduler, "--batch-size", 5, code=1)
    error = capsys.readouterr().err
    assert "Error: worker inproc://" in error
    assert "targets.zarr holds no target store); every worker must reach the images" in error


def test_a_store_that_is_away_while_workers_set_up_is_asked_again(
    scheduler: str, extract: Extract, target_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def away_once(url: str) -> Any:
        asked.append(url)
        if len(asked) == 1:
            raise StorageError(f"{url} cannot be read")
        return read_identity(url)

    monkeypatch.setattr(on_dask, "read_identity", away_once)
    # Another batch size, so that no worker has loaded a teacher for this yet.
    out = extract("--scheduler", scheduler, "--batch-size", 3)
    assert len(asked) > 1
    assert files_without(out, RECORD).keys() == files_without(target_store, RECORD).keys()


def test_a_worker_without_a_package(
    scheduler: str,
    extract: Extract,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lacking(*_: object) -> Any:
        raise ModuleNotFoundError("No module named 'timm'")

    monkeypatch.setattr(on_dask, "extract_units", lacking)
    extract("--scheduler", scheduler, code=1)
    assert "a worker lacks a package (No module named 'timm')" in capsys.readouterr().err


def test_a_stop_is_heeded_and_the_run_goes_on(
    scheduler: str,
    extract: Extract,
    target_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun: list[object] = []

    def signalling(*args: Any) -> Any:
        begun.append(args)
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
            args[3].signal_name = "the end of the run"  # as end_run will say, in its own time
        return extract_units(*args)

    with monkeypatch.context() as patch:
        patch.setattr(on_dask, "extract_units", signalling)
        out = extract("--scheduler", scheduler, code=75)
    assert "SIGUSR1 received; finished units are kept" in capsys.readouterr().err
    assert len(list(out.glob("done/*/*.json"))) < 6
    assert "interrupted" in {report["state"] for report in reports(out)}
    assert json.loads((out / RECORD).read_text())["state"] == "running"
    extract("--scheduler", scheduler)
    assert files_without(out, RECORD) == files_without(target_store, RECORD)


def test_nobody_at_the_address(
    extract: Extract, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 0.1)
    extract("--scheduler", "tcp://127.0.0.1:1", code=1)
    error = capsys.readouterr().err
    assert "--scheduler tcp://127.0.0.1:1 does not answer" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(
    extract: Extract, target_store: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "killed"
    with losing_a_worker(flag, writes=5) as address:
        out = extract("--scheduler", address)
    assert flag.exists()
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    assert json.loads((out / RECORD).read_text())["state"] == "done"


@pytest.mark.slow
def test_processes_of_this_machine(
    extract: Extract, target_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = extract("--processes", 2)
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    assert "dashboard: http://127.0.0.1:" in capsys.readouterr().err
    assert {report["state"] for report in reports(out)} == {"done"}
