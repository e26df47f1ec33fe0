"""Extraction on Dask workers: equal bytes whoever did what, and what happens when things fail."""

import itertools
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import open_clip
import pytest
import torch

from milan_pipeline.extraction.on_dask import FAILURES_IN_A_ROW
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.storage.retries import TRIES
from milan_pipeline.targets.layout import read_identity
from tests.support.cli import run_cli
from tests.support.clip import write_tiny_clip
from tests.support.disturbances import before_modules, no_targets, stopped_and_held
from tests.support.processes import files_without
from tests.support.remote import Action, Request, answering, failing, watched
from tests.support.servers import IMPATIENT, losing_a_worker

Extract = Callable[..., Path]

RECORD = "extract-targets.json"


@pytest.fixture
def extract(image_shards: Path, tiny_clip: Path, target_store: Path, tmp_path: Path) -> Extract:
    precision = read_identity(str(target_store))["teacher"]["precision"]

    def run(*words: object, images: Path = image_shards, code: int = 0) -> Path:
        out = tmp_path / "targets.zarr"
        run_cli(
            "extract-targets", "--images", images, "--out", watched(out), "--teacher",
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
    real = open_clip.create_model

    def load(*args: Any, **settings: Any) -> Any:
        loaded.append(args)
        return real(*args, **settings)

    monkeypatch.setattr(open_clip, "create_model", load)
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
    scheduler: str, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[object] = []

    def full(*_: object) -> None:
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.4 GiB")

    with before_modules(full):
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
    out = extract("--codec", "joint:bytes=4")
    alone = files_without(out, RECORD)
    for name in ("done", "view-00", "view-01"):
        shutil.rmtree(out / name)
    extract("--codec", "joint:bytes=4", "--scheduler", scheduler)
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


def test_what_may_pass_is_tried_again(scheduler: str, extract: Extract, target_store: Path) -> None:
    away = [TimeoutError("away") for _ in range(2 * TRIES)]
    with failing("put", *away, at="view-00/images-000001/codes/zarr.json") as left:
        out = extract("--scheduler", scheduler)
    assert left == []
    assert files_without(out, RECORD) == files_without(target_store, RECORD)


def test_what_fails_again_and_again_ends_the_run(
    scheduler: str, extract: Extract, pictures: Path, tmp_path: Path, capsys
) -> None:
    shards = tmp_path / "shards"
    run_cli("pack-images", pictures, shards, "--samples-per-shard", 1)
    for path in shards.glob("*.tar"):
        path.write_bytes(b"")
    extract("--scheduler", scheduler, images=shards, code=1)
    assert f"{FAILURES_IN_A_ROW} of 48 units failed: view-0" in capsys.readouterr().err


def asked_by_a_worker(request: Request) -> bool:
    """Whether a worker, which is a thread here, asks what targets the store has."""
    is_client = threading.current_thread() is threading.main_thread()
    return request.path.endswith("targets.zarr/zarr.json") and not is_client


def test_a_worker_that_lacks_something_says_so(scheduler: str, extract: Extract, capsys) -> None:
    def missing(request: Request, action: Action) -> Any:
        if asked_by_a_worker(request):
            raise FileNotFoundError
        return action()

    # Another batch size, so that no worker has loaded a teacher for this yet.
    with answering(missing):
        extract("--scheduler", scheduler, "--batch-size", 5, code=1)
    error = capsys.readouterr().err
    assert "Error: worker inproc://" in error
    assert "targets.zarr holds no target store; " in error
    assert "); every worker must reach the images" in error


def test_a_store_that_is_away_while_workers_set_up_is_asked_again(
    scheduler: str, extract: Extract, target_store: Path
) -> None:
    asked = itertools.count()

    def away_once(request: Request, action: Action) -> Any:
        if asked_by_a_worker(request) and next(asked) < TRIES:
            raise TimeoutError
        return action()

    # Another batch size, so that no worker has loaded a teacher for this yet.
    with answering(away_once):
        out = extract("--scheduler", scheduler, "--batch-size", 3)
    assert next(asked) > TRIES
    assert files_without(out, RECORD).keys() == files_without(target_store, RECORD).keys()


def test_a_worker_without_a_package(scheduler: str, extract: Extract, capsys) -> None:
    with no_targets(ModuleNotFoundError("No module named 'timm'")):
        extract("--scheduler", scheduler, code=1)
    assert "a worker lacks a package (No module named 'timm')" in capsys.readouterr().err


def test_a_stop_is_heeded_and_the_run_goes_on(
    scheduler: str,
    extract: Extract,
    target_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with stopped_and_held("SIGUSR1"):
        out = extract("--scheduler", scheduler, code=75)
        assert len(list(out.glob("done/*/*.json"))) < 6
    assert "SIGUSR1 received; finished units are kept" in capsys.readouterr().err
    assert "interrupted" in {report["state"] for report in reports(out)}
    assert json.loads((out / RECORD).read_text())["state"] == "running"
    extract("--scheduler", scheduler)
    assert files_without(out, RECORD) == files_without(target_store, RECORD)


def test_nobody_at_the_address(extract: Extract, capsys: pytest.CaptureFixture[str]) -> None:
    with dask.config.set(IMPATIENT):
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
    extract: Extract, target_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = extract("--processes", 2, "--out", tmp_path / "targets.zarr")
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    assert "dashboard: http://127.0.0.1:" in capsys.readouterr().err
    assert {report["state"] for report in reports(out)} == {"done"}
