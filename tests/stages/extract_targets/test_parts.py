"""extract-targets in parts: equal to one process, whoever comes when, and what it refuses."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.layout import read_identity
from tests.support.cli import run_cli
from tests.support.clip import write_tiny_clip
from tests.support.disturbances import at_put, no_targets, once_at_put
from tests.support.pictures import pack_torn, write_picture
from tests.support.processes import files_without
from tests.support.remote import Request, watched

Extract = Callable[..., Path]
Remote = tuple[str, str]

RECORD = "extract-targets.json"


@pytest.fixture
def words(image_shards: Path, tiny_clip: Path, target_store: Path, tmp_path: Path) -> list[str]:
    """The command; `targets.zarr` is the store. Its precision is settled, as --init needs it."""
    precision = read_identity(str(target_store))["teacher"]["precision"]
    return [
        "extract-targets", "--images", str(image_shards), "--out", str(tmp_path / "targets.zarr"),
        "--teacher", f"local-dir:{tiny_clip}", "--batch-size", "4", "--views", "2",
        "--precision", precision,
    ]  # fmt: skip


@pytest.fixture
def extract(words: list[str], tmp_path: Path) -> Extract:
    """Run the stage with defaults; later words win."""

    def run(*more: object, code: int = 0) -> Path:
        run_cli(*words, *more, code=code)
        return tmp_path / "targets.zarr"

    return run


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """Words that have the store be one that a test listens to."""
    return "--out", watched(tmp_path / "targets.zarr")


def record(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / RECORD).read_text())
    return found


def marks(store: Path) -> set[str]:
    return {str(path.relative_to(store / "done")) for path in store.glob("done/*/*.json")}


def test_parts_give_what_one_process_gives(extract: Extract, target_store: Path, capsys) -> None:
    extract("--init")
    assert "ready, 6 of 6 units to do" in capsys.readouterr().out
    for part, left in (("2/3", 4), ("0/3", 2)):
        out = extract("--part", part)
        said = f"2 units done now; {left} of all 6 units are left to others"
        assert said in capsys.readouterr().out
        assert record(out)["state"] == "running"
    started = record(out)["started"]
    extract("--part", "1/3")
    assert "6 units, 2 units done now, 48 targets, 0 skipped" in capsys.readouterr().out
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    assert record(out)["state"] == "done"
    assert record(out)["counts"]["targets"] == 48
    assert record(out)["started"] == started
    assert {path.name for path in (out / "progress").iterdir()} == {
        f"part-00{number}-of-003.json" for number in range(3)
    }
    extract("--part", "1/3")
    assert "nothing to do, 6 units are done" in capsys.readouterr().out


def test_precision_is_not_settled_for_other_machines(extract: Extract, capsys) -> None:
    for elsewhere in (("--init",), ("--scheduler", "tcp://127.0.0.1:1"), ("--init", "--dry-run")):
        assert not extract("--precision", "auto", *elsewhere, code=2).exists()
        assert "give --precision bf16 or --precision fp32" in capsys.readouterr().err
    extract("--precision", "bf16", "--init", "--device", "cpu")
    assert "in bf16 on the machines that extract\n" in capsys.readouterr().out
    for more in (("--init",), ("--part", "0/6", "--device", "cpu")):
        extract("--precision", "auto", *more)  # the store's
    assert "in bf16 on cpu\n" in capsys.readouterr().out
    extract("--precision", "auto", "--init", "--overwrite", code=2)


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--init",)])
def test_where_no_store_can_be(
    extract: Extract, image_shards: Path, more: tuple[str, ...], capsys
) -> None:
    extract("--out", "http://127.0.0.1:1/targets.zarr", *more, code=1)
    assert "web servers are only read from" in capsys.readouterr().err
    extract("--out", image_shards, *more, code=2)
    assert f"--out {image_shards} is a folder of shards" in capsys.readouterr().err


def test_a_part_submitted_again_does_its_own_units_alone(extract: Extract) -> None:
    out = extract("--part", "0/4")
    before = files_without(out, RECORD)
    assert marks(out) == {"view-00/images-000000.json", "view-01/images-000001.json"}
    (out / "done/view-01/images-000001.json").unlink()
    assert files_without(extract("--part", "0/4"), RECORD) == before


@pytest.mark.slow
def test_parts_at_the_same_time_in_processes(
    words: list[str], target_store: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "milan_pipeline", *words]
    parts = [subprocess.Popen([*command, "--part", f"{number}/3"]) for number in range(3)]
    assert [part.wait(300) for part in parts] == [0, 0, 0]
    out = tmp_path / "targets.zarr"
    assert files_without(out, RECORD) == files_without(target_store, RECORD)
    assert record(out)["state"] == "done"


def test_init_keeps_what_is_done(extract: Extract, target_store: Path, capsys) -> None:
    out = extract("--part", "0/1")
    extract("--init")
    assert "nothing to do" in capsys.readouterr().out
    assert record(out)["state"] == "done"
    (out / "done/view-00/images-000000.json").unlink()
    extract("--init")
    assert "ready, 1 of 6 units to do" in capsys.readouterr().out
    assert record(out)["state"] == "running"
    extract("--part", "0/1")
    assert files_without(out, RECORD) == files_without(target_store, RECORD)


def test_who_joins_late_does_not_undo_that_it_is_done(extract: Extract, remote: Remote) -> None:
    """A part reads the record before there is one, and writes "running" after others ended."""
    ended = []
    with once_at_put(RECORD, lambda: ended.append(record(extract("--part", "0/1"))["state"])):
        assert record(extract("--part", "1/2", *remote))["state"] == "done"
    assert ended == ["done"]


def test_more_views_in_parts_start_the_record_anew(extract: Extract) -> None:
    extract("--views", 1)
    out = extract("--part", "0/2")
    assert record(out)["state"] == "running"
    assert record(out)["extent"]["views"] == 2
    assert record(extract("--part", "1/2"))["state"] == "done"


@pytest.mark.parametrize(
    ("option", "then", "now"), [("--views", 2, 1), ("--views", 1, 2), ("--batch-size", 4, 3)]
)
def test_parts_of_one_run_do_the_same(
    extract: Extract, option: str, then: int, now: int, capsys
) -> None:
    out = extract(option, then, "--part", "0/4")
    before = (out / RECORD).read_bytes()
    extract(option, now, "--part", "0/2", code=1)
    assert (out / RECORD).read_bytes() == before
    error = capsys.readouterr().err
    assert f"{option} {now} is not what {out} was begun with, {then}; give {option} {then}" in error
    assert f"`extract-targets --init` again with {option} {now}" in error
    assert error.count("\n") == 1
    extract(option, now, "--init")
    extract(option, now, "--part", "0/2")
    assert record(extract(option, now, "--part", "1/2"))["state"] == "done"


def test_parts_of_one_run_have_the_same_images(
    extract: Extract, image_shards: Path, tmp_path: Path, capsys
) -> None:
    shutil.copytree(image_shards, tmp_path / "shards")
    full = load_manifest(str(tmp_path / "shards"), kind="images")
    images = ("--images", tmp_path / "shards")
    dataclasses.replace(full, shards=full.shards[:-1]).save()
    extract(*images, "--part", "0/4")
    full.save()
    extract(*images, "--part", "0/4", code=1)
    assert "lists others now; run `extract-targets --init` again" in capsys.readouterr().err
    extract(*images, "--init")
    extract(*images, "--part", "0/4")


def test_who_did_less_does_not_call_it_done(extract: Extract, remote: Remote, capsys) -> None:
    with once_at_put("/view-00/", lambda: extract("--init")):
        out = extract("--views", 1, "--part", "0/1", *remote)
    assert "others have begun to extract more" in capsys.readouterr().out
    assert record(out)["state"] == "running"
    assert record(out)["extent"]["views"] == 2


def test_racing_creators_end_with_one_root(
    extract: Extract, remote: Remote, tmp_path: Path, capsys
) -> None:
    """Two jobs of other targets both find no root; the one that wrote first is refused."""

    def race(_: Request) -> None:
        (tmp_path / "targets.zarr/zarr.json").unlink()
        extract("--view-seed", 1, "--init")

    with at_put(race, at="targets.zarr/zarr.json", after=True):
        extract("--part", "0/2", *remote, code=1)
    assert "view_policy.seed is 1 there and 0 here" in capsys.readouterr().err
    assert not marks(tmp_path / "targets.zarr")


def test_a_part_whose_store_is_taken_over_does_not_call_it_done(
    extract: Extract, remote: Remote, capsys
) -> None:
    with once_at_put("/view-00/", lambda: extract("--view-seed", 1, "--init", "--overwrite")):
        extract("--part", "0/1", *remote, code=1)
    assert "view_policy.seed is 1 there and 0 here" in capsys.readouterr().err


def test_overwriting_in_parts(extract: Extract, tmp_path: Path, capsys) -> None:
    out = extract()
    other = f"local-dir:{write_tiny_clip(tmp_path / 'other', seed=1)}"
    extract("--teacher", other, "--part", "0/2", code=1)
    assert "teacher.weights_sha256" in capsys.readouterr().err
    extract("--teacher", other, "--init", "--overwrite")
    for number in range(2):
        extract("--teacher", other, "--part", f"{number}/2")
    assert record(out)["state"] == "done"
    whole = files_without(out, RECORD)
    shutil.rmtree(out)
    extract("--teacher", other)
    assert whole == files_without(out, RECORD)


def test_overwriting_with_other_images_in_parts(extract: Extract, tmp_path: Path) -> None:
    extract()
    for number in range(5):
        write_picture(tmp_path / "in" / f"{number}.jpg", 50 + number)
    run_cli("pack-images", tmp_path / "in", tmp_path / "shards", "--samples-per-shard", 3)
    images = ("--images", tmp_path / "shards")
    extract(*images, "--part", "0/2", code=1)
    extract(*images, "--init", "--overwrite")
    for number in range(2):
        out = extract(*images, "--part", f"{number}/2")
    assert record(out)["state"] == "done"
    assert record(out)["counts"]["targets"] == 10


@pytest.fixture
def bad_shards(tmp_path: Path) -> Path:
    """Three shards of 10 images; 2 images of the first end early, 1 of the second."""
    return pack_torn(tmp_path, 30, (3, 7, 13))


def test_a_part_counts_bad_images_among_its_own(extract: Extract, bad_shards: Path, capsys) -> None:
    images = ("--images", bad_shards, "--views", 1)
    extract(*images, "--max-bad-fraction", 0.1, "--part", "0/3", code=1)
    assert "2 of 10 images are unreadable" in capsys.readouterr().err
    extract(*images, "--max-bad-fraction", 0.2, "--part", "0/3")
    extract(*images, "--max-bad-fraction", 0.1, "--part", "1/3")


def test_who_does_the_last_unit_counts_all_bad_images(
    extract: Extract, bad_shards: Path, capsys
) -> None:
    images = ("--images", bad_shards, "--views", 1)
    for number in (0, 1):
        extract(*images, "--max-bad-fraction", 0.2, "--part", f"{number}/3")
    extract(*images, "--max-bad-fraction", 0.05, "--part", "2/3", code=1)
    assert "2 of 30 images are unreadable" in capsys.readouterr().err
    out = extract(*images, "--max-bad-fraction", 0.1, "--part", "2/3")
    assert record(out)["counts"] == {
        "units": 3, "units_done_now": 0, "targets": 27, "skipped": 3,
    }  # fmt: skip


def test_dry_run_of_a_part(extract: Extract, capsys) -> None:
    out = extract("--part", "0/3")
    (out / "done/view-01/images-000000.json").unlink()
    capsys.readouterr()
    extract("--part", "0/3", "--dry-run")
    output = capsys.readouterr().out
    assert "units to do: 1, done: 1 in part 0/3; in all parts 5 of 6 to do" in output
    assert "  view-01: 1 not done yet\n" in output
    assert "view-00: " not in output
    assert "images to run through the teacher: 10\n" in output


def test_dry_run_names_a_revoked_unit(extract: Extract, capsys) -> None:
    out = extract()
    (out / "extract-targets.json").unlink()
    with no_targets(OSError("the disk is full")):
        extract("--view-seed", 1, "--overwrite", code=1)
    capsys.readouterr()
    extract("--view-seed", 1, "--dry-run")
    output = capsys.readouterr().out
    assert "view-00/images-000000: its mark is revoked" in output
    assert "view-01/images-000002: it was extracted with other parameters" in output


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--part", "3/3"], "--part '3/3' is not K/N with 0 <= K < N"),
        (["--part", "-1/3"], "--part '-1/3' is not K/N"),
        (["--part", "1"], "--part '1' is not K/N"),
        (["--part", "0/0"], "--part '0/0' is not K/N"),
        (["--part", "0/2", "--overwrite"], "--init --overwrite` once, then the parts without"),
        (["--part", "0/2", "--init"], "--init does no unit"),
        (["--processes", 2, "--init"], "--init does no unit"),
        (["--processes", 2, "--scheduler", "tcp://x:1"], "--scheduler and --processes are two"),
        (["--scheduler", "nonsense"], "--scheduler nonsense is no address"),
        (["--scheduler", "tcp://x"], "--scheduler tcp://x is no address"),
        (["--grid", 1000000], "--grid 1000000 is above 128"),
        (["--processes", 0], "--processes 0 is below 1"),
    ],
)
def test_wrong_usage(extract: Extract, more: list[object], named: str, capsys) -> None:
    assert not extract(*more, code=2).exists()
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_two_writers_of_one_unit_do_no_harm(
    words: list[str], target_store: Path, tmp_path: Path
) -> None:
    """Before a write of one process, another one does the same units from first to last."""
    undisturbed = files_without(target_store, RECORD)
    objects = sum(path.startswith("view-00/images-000000/") for path in undisturbed)
    # The root, the record, and the first unit with its group and mark.
    for number in range(0, objects + 4, 5):
        out = tmp_path / f"{number}.zarr"
        interleaved([*words, "--views", "1", "--out", str(out)], number)
        files = files_without(out, RECORD)
        assert files == {path: undisturbed[path] for path in files}
        assert len(marks(out)) == 3
        assert record(out)["state"] == "done"


def interleaved(words: list[str], number: int) -> None:
    """Run a command and, before its write of this number, the same one in another thread.

    Reports do not count: they have a thread of their own.
    """
    writes = itertools.count()

    def another(request: Request) -> None:
        if "/progress/" not in request.path and next(writes) == number:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(run_cli, *words).result()

    with at_put(another):
        run_cli(*words[:-1], watched(words[-1]))
    assert next(writes) > number
