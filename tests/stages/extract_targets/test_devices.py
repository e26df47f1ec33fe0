"""extract-targets on several devices, and the batch size that a machine chooses."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tqdm import tqdm

from milan_pipeline.cluster.work import Part
from milan_pipeline.errors import MissingDataError, StorageError
from milan_pipeline.provenance.reporter import WRITE_EVERY, Reporter
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.devices import _following, shares_of
from milan_pipeline.stages.extract_targets.run import uses_teacher
from tests.support.cli import extract_targets
from tests.support.disturbances import no_targets
from tests.support.processes import GIVE_UP, files_without

Extract = Callable[..., Path]
RECORD = "extract-targets.json"


@pytest.fixture
def extract(image_shards: Path, tiny_clip: Path, tmp_path: Path) -> Extract:
    """Run the stage with defaults; later words win."""

    def run(*words: object, code: int = 0) -> Path:
        out = tmp_path / "targets.zarr"
        extract_targets(image_shards, tiny_clip, out, *words, code=code)
        return out

    return run


def record(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / RECORD).read_text())
    return found


@pytest.mark.parametrize("part", [None, "1/3"])
def test_each_device_has_its_share_of_the_units(
    part: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    options: dict[str, Any] = {"images": "x", "out": "y", "teacher": "ViT-B-16", "part": part}
    shares = shares_of(ExtractTargets(**options, devices="all"))
    assert [share.device for share in shares] == [f"cuda:{number}" for number in range(4)]
    units = range(50)
    of_shares = [Part.parse(share.part or "").of(units) for share in shares]
    whole = Part.parse(part or "0/1").of(units)
    assert sorted(unit for share in of_shares for unit in share) == whole
    assert {len(share) for share in of_shares} <= {len(whole) // 4, len(whole) // 4 + 1}
    assert {share.devices for share in shares} == {None}


@pytest.mark.parametrize("error", [MissingDataError, StorageError, BrokenPipeError])
def test_the_bar_follows_the_reports_and_ends_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    for name, images in (("part-0", 5), ("part-1", 2), ("part-2", 100)):
        reporter = Reporter(str(tmp_path), name, units=1)
        reporter.images(images)
        reporter.close("done")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now)
    bar = cast(Any, tqdm(total=10, file=io.StringIO()))
    look = _following(str(tmp_path), {"part-0", "part-1"}, bar)
    look()
    assert bar.n == 0  # no look is due
    with monkeypatch.context() as patch:
        now += WRITE_EVERY
        patch.setattr(bar, "update", raising(error))
        look()
    now += WRITE_EVERY
    look()
    assert bar.n == 7


def raising(error: type[Exception]) -> Callable[[object], None]:
    def fail(_: object) -> None:
        raise error

    return fail


@pytest.mark.slow
def test_processes_of_devices_give_what_one_process_gives(
    extract: Extract, target_store: Path, capfd
) -> None:
    out = extract("--views", 2, "--batch-size", 4, "--devices", "cpu,cpu")
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    assert record(out)["state"] == "done"
    said = capfd.readouterr().out.splitlines()
    assert said[0].endswith(" on cpu, cpu")
    assert said[1].endswith("6 units, 6 units done now, 48 targets, 0 skipped")
    assert len(said) == 2


@pytest.mark.slow
def test_a_stop_reaches_the_processes_of_devices(
    image_shards: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "targets.zarr"
    words = [
        *("--images", image_shards, "--out", out, "--teacher", f"local-dir:{tiny_clip}"),
        *("--views", 100, "--devices", "cpu,cpu"),
    ]
    command = [sys.executable, "-m", "milan_pipeline", "extract-targets", *map(str, words)]
    process = subprocess.Popen(command)
    while not list(out.glob("done/*/*.json")):
        assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    assert process.wait(GIVE_UP) == 75
    assert 0 < len(list(out.glob("done/*/*.json"))) < 300
    assert record(out)["state"] == "running"


@pytest.mark.parametrize(
    "more", [("--init",), ("--processes", 2), ("--device", "cpu"), ("--scheduler", "tcp://x:1")]
)
def test_devices_are_one_way_to_share(extract: Extract, more: tuple[object, ...], capsys) -> None:
    assert not extract("--devices", "cpu,cpu", *more, code=2).exists()
    assert "leave out --device, --init, --processes and --scheduler" in capsys.readouterr().err


def test_a_batch_size_is_chosen_once(extract: Extract, target_store: Path, capsys) -> None:
    out = extract("--batch-size", "auto")
    assert "batch size 64, the usual one on a CPU" in capsys.readouterr().out
    assert record(out)["config"]["batch_size"] == 64
    extract("--batch-size", 4, "--views", 2)
    assert record(out)["config"]["batch_size"] == 4
    (out / "done/view-00/images-000000.json").unlink()
    extract("--batch-size", "auto", "--views", 2, "--part", "0/1")
    assert f"batch size 4, that of earlier runs into {out}" in capsys.readouterr().out


def test_a_chosen_batch_size_that_does_not_fit_is_named(extract: Extract, capsys) -> None:
    with no_targets(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")):
        extract("--batch-size", "auto", code=2)
    assert "; give --batch-size 32 or less, the same to all parts\n" in capsys.readouterr().err


def test_a_teacher_that_cannot_be_compiled_names_the_option(extract: Extract, capsys) -> None:
    failed = type("BackendCompilerFailed", (RuntimeError,), {})  # torch's takes more arguments
    with no_targets(failed("no C++ compiler")):
        extract("--compile", code=2)
    assert "(no C++ compiler); give --no-compile, or install" in capsys.readouterr().err


def test_the_teacher_is_not_run_beside_the_devices_for_what_is_recorded(
    target_store: Path, tmp_path: Path
) -> None:
    def uses(out: Path, **more: Any) -> bool:
        options: dict[str, Any] = {"images": "x", "out": str(out), "teacher": "ViT-B-16"} | more
        return uses_teacher(ExtractTargets(**options))

    fitted, new = {"codec": "tiny", "devices": "all"}, tmp_path / "new"
    auto = {"batch_size": "auto", "devices": "all"}
    assert not uses(new, devices="all")
    for choice in (fitted, auto):
        assert uses(new, **choice)
        assert not uses(target_store, **choice)
        assert uses(target_store, **choice, overwrite=True)
    assert uses(target_store)
    assert not uses(new, init=True)


@pytest.mark.parametrize("elsewhere", [("--init",), ("--processes", 2), ("--part", "0/2")])
def test_a_batch_size_is_not_chosen_for_others(
    extract: Extract, elsewhere: tuple[object, ...], capsys
) -> None:
    extract("--batch-size", "auto", *elsewhere, code=2)
    error = capsys.readouterr().err
    assert "--batch-size auto" in error
    assert "--batch-size 64" in error
    assert error.count("\n") == 1


def test_a_batch_size_is_a_number_or_auto(extract: Extract, capsys) -> None:
    extract("--batch-size", "much", code=2)
    assert "'much' is no whole number, and not auto" in capsys.readouterr().err
    extract("--batch-size", 0, code=2)
    assert "--batch-size 0 is below 1" in capsys.readouterr().err
