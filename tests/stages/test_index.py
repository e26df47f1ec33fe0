"""index: tars that others made get an index and a manifest."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import webdataset

from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.random_access import SampleReader
from tests.support.cli import run_cli
from tests.support.pictures import write_picture


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two tars of 3 samples each, whose keys start again in each, written by WebDataset."""
    folder = tmp_path / "foreign"
    write_picture(tmp_path / "picture.jpg", 0)
    folder.mkdir()
    for number in range(2):
        with webdataset.TarWriter(str(folder / f"web-{number:03d}.tar")) as tar:
            for key in range(3):
                picture = (tmp_path / "picture.jpg").read_bytes()
                tar.write({"__key__": f"{key:04d}", "jpg": picture, "cls": key, "json": {"a": 1}})
    return folder


def names(folder: Path) -> list[str]:
    return [shard.name for shard in load_manifest(str(folder), kind="images").shards]


def test_tars_of_webdataset(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("index", foreign / "web-{000..001}.tar")
    assert "2 shards, 6 images, 0 left out" in capsys.readouterr().out
    assert names(foreign) == ["web-000.tar", "web-001.tar"]
    manifest = load_manifest(str(foreign), kind="images")
    reader = SampleReader()
    for shard in manifest.shards:
        for row in load_index(manifest, shard):
            data = reader.read(
                manifest.url_of(shard), int(row["offset"]), int(row["length"]), int(row["xxh3"])
            )
            assert data == (foreign.parent / "picture.jpg").read_bytes()
    reader.close()
    record = json.loads((foreign / "index.json").read_text())
    assert record["state"] == "done"
    assert record["counts"]["images"] == 6
    assert record["counts"]["manifest_sha256"] == manifest.sha256


def test_a_tar_of_the_command_line_is_extracted(tmp_path: Path, tiny_clip: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / "in" / "deep" / f"{number}.jpeg", number)
    shards = tmp_path / "shards"
    shards.mkdir()
    subprocess.run(["tar", "-cf", shards / "x.tar", "-C", tmp_path / "in", "."], check=True)
    words = (
        "extract-targets", "--images", shards, "--out", tmp_path / "t.zarr",
        "--teacher", f"local-dir:{tiny_clip}",
    )  # fmt: skip
    run_cli(*words, code=1)
    run_cli("index", shards / "x.tar")
    run_cli(*words)
    mark = json.loads((tmp_path / "t.zarr" / "done" / "view-00" / "x.json").read_text())
    assert mark["n"] == 3


def test_a_second_run_has_nothing_to_do_and_new_tars_are_added(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("index", foreign / "web-000.tar")
    first = (foreign / "manifest.json").read_bytes()
    run_cli("index", foreign / "web-000.tar")
    assert "nothing to do, 1 shards are listed" in capsys.readouterr().out
    assert (foreign / "manifest.json").read_bytes() == first
    run_cli("index", foreign / "web-{000,001}.tar", "--dry-run")
    said = capsys.readouterr().out
    assert "shards to index: 1, listed: 1" in said
    assert f"bytes to read: {(foreign / 'web-001.tar').stat().st_size} (" in said
    assert "free: " in said
    run_cli("index", foreign / "web-001.tar")
    assert names(foreign) == ["web-000.tar", "web-001.tar"]


def test_overwrite_reads_again_what_is_named_and_keeps_the_rest(
    foreign: Path, tmp_path: Path
) -> None:
    run_cli("index", foreign / "web-{000,001}.tar")
    before = load_manifest(str(foreign), kind="images").shards
    (foreign / "web-000.tar").write_bytes((foreign / "web-001.tar").read_bytes())
    with webdataset.TarWriter(str(foreign / "web-000.tar")) as tar:
        tar.write({"__key__": "new", "jpg": (tmp_path / "picture.jpg").read_bytes()})
    run_cli("index", foreign / "web-000.tar", "--overwrite")
    after = load_manifest(str(foreign), kind="images").shards
    assert [shard.samples for shard in after] == [1, 3]
    assert after[1] == before[1]


def test_a_tar_that_changed_or_lost_its_index_is_read_again(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("index", foreign / "web-{000,001}.tar")
    before = load_manifest(str(foreign), kind="images").shards
    with webdataset.TarWriter(str(foreign / "web-000.tar")) as tar:
        for key in range(30):
            tar.write({"__key__": f"{key}", "jpg": (tmp_path / "picture.jpg").read_bytes()})
    (foreign / "web-001.index.npy").unlink()
    run_cli("index", foreign / "web-{000,001}.tar", "--dry-run")
    assert "shards to index: 2, listed: 0" in capsys.readouterr().out
    run_cli("index", foreign / "web-{000,001}.tar")
    after = load_manifest(str(foreign), kind="images").shards
    assert [shard.samples for shard in after] == [30, 3]
    assert after[1] == before[1]
    assert (foreign / "web-001.index.npy").exists()
    (foreign / "web-000.tar").unlink()
    run_cli("index", foreign / "web-{000,001}.tar", code=1)
    assert "web-000.tar cannot be read" in capsys.readouterr().err


def test_a_tar_given_twice_is_listed_once(foreign: Path) -> None:
    run_cli("index", foreign / "web-000.tar", foreign / "web-{000,001}.tar")
    assert names(foreign) == ["web-000.tar", "web-001.tar"]


def test_tars_elsewhere(foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_cli("index", foreign / "web-{000,001}.tar", "--out", out)
    assert names(out) == [str(foreign / f"web-00{number}.tar") for number in range(2)]
    manifest = load_manifest(str(out), kind="images")
    assert [len(load_index(manifest, shard)) for shard in manifest.shards] == [3, 3]
    assert sorted(path.name for path in foreign.iterdir()) == ["web-000.tar", "web-001.tar"]


def test_tars_of_one_name_are_refused_before_anything_is_written(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(foreign, tmp_path / "other")
    tars = [folder / "web-000.tar" for folder in (foreign, tmp_path / "other")]
    run_cli("index", *tars, code=2)
    assert "URLS lie in 2 folders; say by --out where to index" in capsys.readouterr().err
    run_cli("index", *tars, "--out", tmp_path / "out", code=1)
    assert "two shards are called web-000.tar" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_tar_is_named_and_the_others_are_kept(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = foreign / "web-001.tar"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    run_cli("index", foreign / "web-{000,001}.tar", "--workers", 0, code=1)
    assert "web-001.tar is damaged or truncated" in capsys.readouterr().err
    unfinished = load_manifest(str(foreign), kind="images", allow_unfinished=True)
    assert [shard.name for shard in unfinished.shards] == ["web-000.tar"]
    path.write_bytes(good)
    run_cli("index", foreign / "web-{000,001}.tar")
    assert names(foreign) == ["web-000.tar", "web-001.tar"]


@pytest.mark.parametrize("url", ["nowhere/x.tar", "pipe:cat x.tar"])
def test_what_cannot_be_read(url: str, tmp_path: Path, capsys) -> None:
    run_cli("index", url, "--out", tmp_path / "out", code=1)
    assert "x.tar" in capsys.readouterr().err


@pytest.mark.parametrize("is_sorted", [True, False])
def test_tars_that_are_sorted_by_class_are_told_of(
    is_sorted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("milan_pipeline.data.class_order.MIXED", 30)
    write_picture(tmp_path / "picture.jpg", 0)
    picture = (tmp_path / "picture.jpg").read_bytes()
    for tar in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{tar}.tar")) as writer:
            for row in range(24):
                number = 2 * tar + row // 12 if is_sorted else 7 * row % 4
                writer.write({"__key__": f"{row:02d}", "jpg": picture, "cls": number})
    run_cli("index", tmp_path / "{0,1}.tar")
    said = capsys.readouterr().err
    assert (f"the tars of {tmp_path} are sorted by class" in said) == is_sorted
    assert ("pack-images" in said) == is_sorted


def test_tars_whose_names_differ_by_capitals_are_refused(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Many disks would keep one index for both."""
    other = tmp_path / "other" / "Web-000.tar"
    other.parent.mkdir()
    shutil.copy(foreign / "web-000.tar", other)
    run_cli("index", foreign / "web-000.tar", other, "--out", tmp_path / "out", code=1)
    error = capsys.readouterr().err
    assert "two shards are called web-000.tar and Web-000.tar; rename one of them" in error
