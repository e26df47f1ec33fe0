"""pack-images: which files and folders it takes for images and classes, and what it says."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.cli import run_cli
from tests.support.pictures import content, load, write_picture


def test_the_last_line_names_the_first_classes(pictures: Path, tmp_path: Path, capsys) -> None:
    run_cli("pack-images", pictures, tmp_path / "out")
    assert "3 classes (ant, bee, cat), 24 images" in capsys.readouterr().out
    run_cli("pack-images", pictures, tmp_path / "out2", "--dry-run")
    assert "images: 24, classes: 3 (ant, bee, cat)" in capsys.readouterr().out


def test_a_wrapper_folder_is_pointed_out(pictures: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "wrap").mkdir()
    (tmp_path / "wrap" / "images").symlink_to(pictures)
    run_cli("pack-images", tmp_path / "wrap", tmp_path / "out")
    said = capsys.readouterr()
    assert f"if the classes are the folders below, give {tmp_path}/wrap/images" in said.err
    assert "1 class (images)" in said.out


def test_images_under_other_names_are_packed_and_lost_ones_are_named(tmp_path, capsys) -> None:
    source = tmp_path / "in"
    for number, name in enumerate(("a.jfif", "b.jpg?size=large", "c")):
        write_picture(source / "ant" / "x.jpg", number)
        (source / "ant" / "x.jpg").rename(source / "ant" / name)
    (source / "bee").mkdir()
    (source / "bee" / "d.tif").write_bytes(b"II*\0")
    (source / "bee" / "gone.jpg").symlink_to("../annex/gone.jpg")
    run_cli("pack-images", source, tmp_path / "out")
    said = capsys.readouterr()
    assert "2 classes (ant, bee), 3 images, 2 skipped" in said.out
    assert "1 of 5 pictures in" in said.err
    assert "1 of 2 classes has no image that was packed (bee)" in said.err
    ledger = load(tmp_path / "out").shards[0].details["skipped"]
    assert {row["file"]: row["reason"][:11] for row in ledger} == {
        "d.tif": "the bytes s",
        "gone.jpg": "it is a lin",
    }
    assert set(content(tmp_path / "out")["ant/a"]) == {"jpeg", "cls"}


def test_a_source_without_a_readable_image_fails(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jpg").write_text("<html>")
    run_cli("pack-images", tmp_path / "in", tmp_path / "out", "--no-shuffle", code=1)
    assert "can be read (0.jpg: the image file" in capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "progress" / "pack-images.json").read_text())
    assert report["state"] == "failed"


def test_files_copied_anew_leave_nothing_to_do(pictures: Path, tmp_path: Path, capsys) -> None:
    run_cli("pack-images", pictures, tmp_path / "out")
    shutil.copytree(pictures, tmp_path / "copy", copy_function=shutil.copyfile)
    run_cli("pack-images", tmp_path / "copy", tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out


def test_the_folder_that_is_written_is_no_class(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "in")
    (tmp_path / "in" / "out").mkdir()
    for _ in range(2):
        run_cli("pack-images", tmp_path / "in", tmp_path / "in" / "out")
        assert load(tmp_path / "in" / "out").common["classes"] == ["ant", "bee", "cat"]


def test_a_folder_of_the_sources_own_images_is_no_destination(tmp_path, capsys):
    for name in "ab":
        write_picture(tmp_path / "in" / name / "0.jpg", 1)
    run_cli("pack-images", tmp_path / "in", tmp_path / "in" / "a", code=2)
    assert "is a part of SOURCE with 1 picture (0.jpg), which" in capsys.readouterr().err
    for _ in range(2):
        run_cli("pack-images", tmp_path / "in", tmp_path / "in" / "shards")


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (("s3://bucket/photos", "out"), "SOURCE s3://bucket/photos is a URL, but pictures are"),
        (("", "out"), "SOURCE is empty; give a value"),
        ((".", "out", "--masks", ""), "--masks is empty; give a value"),
        ((".", "."), "DEST . is SOURCE itself"),
        ((".", "file"), "DEST file is a file"),
    ],
)
def test_places_that_cannot_be(tmp_path: Path, monkeypatch, capsys, places, message) -> None:
    write_picture(tmp_path / "cat" / "a.jpg", 0)
    (tmp_path / "file").write_text("text")
    monkeypatch.chdir(tmp_path)
    run_cli("pack-images", *places, code=2)
    assert message in capsys.readouterr().err


def test_a_source_may_be_a_url_of_files(pictures: Path, tmp_path: Path) -> None:
    run_cli("pack-images", f"file://{pictures}", tmp_path / "out")
    assert len(content(tmp_path / "out")) == 24
