"""pack-images: bytes, labels, ledger, and what a second run does."""

import errno
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from milan_pipeline.cli.main import main
from milan_pipeline.core.console import bytes_text
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.images.decode import probe_header
from milan_pipeline.images.orientation import ORIENTATION
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.storage.leftovers import temporary_name
from tests.support.cli import run_cli
from tests.support.disturbances import run_and_kill, stopped_at_put
from tests.support.pictures import (
    content,
    labels,
    load,
    noise,
    png,
    write_ade_tree,
    write_photos,
    write_picture,
)
from tests.support.processes import files_without
from tests.support.remote import failing, watched

RECORD = "pack-images.json"


@pytest.fixture
def packed(image_shards: Path, tmp_path: Path) -> Path:
    """The pictures' shards, which a test may change."""
    return Path(shutil.copytree(image_shards, tmp_path / "out"))


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Everything but the record, which holds times: name -> (bytes, time of the last write)."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file() and path.name != "pack-images.json"
    }


def test_bytes_and_classes_are_kept(pictures: Path, image_shards: Path) -> None:
    classes = ["ant", "bee", "cat"]
    assert content(image_shards) == {
        f"{path.parent.name}/{path.stem}": {
            "jpg": path.read_bytes(),
            "cls": str(classes.index(path.parent.name)).encode(),
        }
        for path in pictures.rglob("*.jpg")
    }
    manifest = load(image_shards)
    assert [shard.name for shard in manifest.shards] == [f"images-00000{n}.tar" for n in range(3)]
    assert [shard.samples for shard in manifest.shards] == [10, 10, 4]
    assert manifest.common["classes"] == classes


def test_the_order_is_seeded(pictures: Path, tmp_path: Path) -> None:
    keys = {}
    options: dict[str, tuple[object, ...]] = {
        "plain": ("--no-shuffle",),
        "one": ("--seed", 1),
        "again": ("--seed", 1, "--workers", 0),
        "two": ("--seed", 2),
    }
    for name, words in options.items():
        run_cli("pack-images", pictures, tmp_path / name, *words)
        keys[name] = list(content(tmp_path / name))
    assert keys["plain"] == sorted(keys["plain"])
    assert keys["one"] == keys["again"]
    assert len({tuple(order) for order in keys.values()}) == 3
    assert sorted(keys["one"]) == sorted(keys["two"]) == keys["plain"]
    first, second = (tmp_path / name / "images-000000.tar" for name in ("one", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_what_is_no_image_is_in_the_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    write_picture(source / "good.jpg", 0)
    (source / "text.jpg").write_text("not an image")
    (source / "empty.png").write_bytes(b"")
    (source / "notes.txt").write_text("about")
    run_cli("pack-images", source, tmp_path / "out")
    assert "1 image, 2 skipped, 1 ignored" in capsys.readouterr().out
    manifest = load(tmp_path / "out")
    assert list(content(tmp_path / "out")) == ["good"]
    ledger = {row["file"]: row for row in manifest.shards[0].details["skipped"]}
    assert ledger.keys() == {"text.jpg", "empty.png"}
    assert ledger["text.jpg"]["key"] == "text"
    assert "no JPEG, PNG or WebP" in ledger["text.jpg"]["reason"]
    assert ledger["empty.png"]["reason"] == "the image file is empty; copy or download it again"
    assert [row["file"] for row in manifest.common["ignored"]] == ["notes.txt"]


def test_a_list_file(pictures: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.tsv"
    listing.write_text(f"{pictures}/ant/000.jpg\t5\n{pictures}/bee/001.jpg\n")
    run_cli("pack-images", listing, tmp_path / "out", "--no-shuffle", "--prefix", "few")
    first, second = content(tmp_path / "out").values()
    assert first["cls"] == b"5"
    assert first["jpg"] == (pictures / "ant" / "000.jpg").read_bytes()
    assert "cls" not in second
    assert load(tmp_path / "out").shards[0].name == "few-000000.tar"


def test_a_second_run_has_nothing_to_do(
    pictures: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(packed)
    run_cli("pack-images", pictures, packed, "--samples-per-shard", 10)
    assert "nothing to do, 3 shards are there" in capsys.readouterr().out
    assert files_of(packed) == before
    record = json.loads((packed / "pack-images.json").read_text())
    assert record["state"] == "done"
    assert record["config"]["samples_per_shard"] == 10
    assert record["counts"]["images"] == 24
    assert record["inputs"]["files"]
    assert record["versions"]["milan-pipeline"]


def test_what_is_lost_or_has_another_size_is_made_again(pictures: Path, packed: Path) -> None:
    """So is all by --overwrite, what is damaged but of the same size included."""
    words, before = ("pack-images", pictures, packed, "--samples-per-shard", 10), files_of(packed)
    tar = packed / "images-000001.tar"
    for lost in ("manifest.json", tar.name, "images-000000.index.npy"):
        (packed / lost).unlink()
        run_cli(*words)
        assert {name: data for name, (data, _) in files_of(packed).items()} == {
            name: data for name, (data, _) in before.items()
        }
    before = files_of(packed)
    os.truncate(tar, 5000)
    run_cli(*words)
    assert files_of(packed)["images-000000.tar"] == before["images-000000.tar"]  # left alone
    assert tar.read_bytes() == before[tar.name][0]
    tar.write_bytes(bytes(tar.stat().st_size))
    os.truncate(packed / "manifest.json", 700)
    run_cli(*words, "--overwrite")
    assert tar.read_bytes() == before[tar.name][0]


def test_overwrite_deletes_the_shards_that_are_listed_no_more(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_cli("pack-images", pictures, out, "--samples-per-shard", 5)
    (out / "mine.tar").touch()
    run_cli("pack-images", pictures, out, "--samples-per-shard", 20, "--overwrite")
    assert {path.name for path in out.glob("*.*") if path.suffix in (".tar", ".npy")} == {
        "mine.tar",
        *(f"images-00000{n}.{end}" for n in range(2) for end in ("tar", "index.npy")),
    }


def test_overwrite_deletes_no_tars_that_index_listed(
    pictures: Path, image_shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(image_shards / "images-000000.tar", out / "theirs.tar")
    run_cli("index", out / "theirs.tar")
    run_cli("pack-images", pictures, out, "--overwrite")
    run_cli("index", out / "theirs.tar", "--overwrite")
    run_cli("pack-images", pictures, out, "--samples-per-shard", 20, "--overwrite")
    assert (out / "theirs.tar").exists()


def test_other_options_into_one_folder_are_refused_by_name(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_cli("pack-images", pictures, out)
    before = files_of(out)
    run_cli("pack-images", pictures, out, "--seed", 3, "--samples-per-shard", 7, code=1)
    error = capsys.readouterr().err
    assert "options.seed is 0 there and 3 here" in error
    assert "options.samples_per_shard is 1000 there and 7 here" in error
    assert error.count("\n") == 1
    assert files_of(out) == before
    run_cli("pack-images", pictures, out, "--seed", 3, "--samples-per-shard", 7, "--overwrite")
    assert [shard.samples for shard in load(out).shards] == [7, 7, 7, 3]
    assert len(content(out)) == 24


def test_changed_files_are_refused(pictures: Path, tmp_path: Path, capsys) -> None:
    source = tmp_path / "in"
    shutil.copytree(pictures, source)
    run_cli("pack-images", source, tmp_path / "out")
    write_picture(source / "ant" / "000.jpg", 99)
    run_cli("pack-images", source, tmp_path / "out", code=1)
    assert "inputs.files is" in capsys.readouterr().err


def test_foreign_shards_are_left_alone(pictures: Path, packed: Path) -> None:
    (packed / "pack-images.json").unlink()
    run_cli("pack-images", pictures, packed, code=2)


def test_a_failed_run_keeps_its_finished_shards(
    pictures: Path, image_shards: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    words = ("pack-images", pictures, out, "--samples-per-shard", 10, "--workers", 0)

    with failing("put", OSError(errno.EINVAL, "No more"), at="images-000002.index.npy"):
        run_cli("pack-images", pictures, watched(out), *words[3:], code=1)
    assert "No more" in capsys.readouterr().err
    unfinished = load_manifest(str(out), kind="images", allow_unfinished=True)
    assert [shard.samples for shard in unfinished.shards] == [10, 10]
    assert not unfinished.complete
    before = files_of(out)
    run_cli(*words, "--dry-run")
    assert "shards to do: 1, done: 2" in capsys.readouterr().out
    run_cli(*words)
    after = files_of(out)
    for name in ("images-000000.tar", "images-000001.tar", "images-000000.index.npy"):
        assert after[name] == before[name]
    for path in image_shards.glob("images-*"):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_a_stop_signal_is_75_and_goes_on_later(
    pictures: Path, image_shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("--samples-per-shard", 10, "--workers", 0)
    with stopped_at_put("images-000001.index.npy"):
        run_cli("pack-images", pictures, watched(out), *words, code=75)
    assert len(load_manifest(str(out), kind="images", allow_unfinished=True).shards) == 2
    run_cli("pack-images", pictures, out, "--samples-per-shard", 10)
    assert load(out).shards == load(image_shards).shards


def test_a_file_that_vanishes_is_named(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    read = Path.read_bytes

    def vanish(path: Path) -> bytes:
        if path.name == "003.jpg":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", vanish)
    run_cli("pack-images", pictures, tmp_path / "out", code=1)
    assert "ant/003.jpg cannot be read (No such file" in capsys.readouterr().err


def test_dry_run_says_what_it_would_do(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = sum(path.stat().st_size for path in pictures.rglob("*.jpg"))
    run_cli("pack-images", pictures, tmp_path / "out", "--samples-per-shard", 7, "--dry-run")
    output = capsys.readouterr().out
    assert "shards to do: 4, done: 0" in output
    assert "images: 24, classes: 3" in output
    assert f"bytes to write: about {bytes_text(size)}; free: " in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [("--samples-per-shard", 0), ("--workers", -1), ("--seed", -1), ("--prefix", "a.b")]
)
def test_values_out_of_range(
    pictures: Path, tmp_path: Path, words: tuple[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("pack-images", pictures, tmp_path / "out", *words, code=2)
    assert capsys.readouterr().err.startswith(f"Error: {words[0]}")
    assert not (tmp_path / "out").exists()


def test_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("pack-images", tmp_path / "nowhere", tmp_path / "out", code=2)
    assert "nowhere does not exist" in capsys.readouterr().err


def test_killed_at_any_write_it_ends_with_the_same_bytes(
    pictures: Path, image_shards: Path, tmp_path: Path
) -> None:
    writes = 0
    while True:
        out = tmp_path / str(writes)
        words = ("--samples-per-shard", 10)
        killed = run_and_kill(writes, "pack-images", pictures, watched(out), *words)
        run_cli("pack-images", pictures, out, *words)
        assert files_without(out, RECORD) == files_without(image_shards, RECORD)
        if not killed:
            break
        writes += 1
    assert writes >= 2 * 3 + 4


def test_a_killed_overwrite_never_mixes_old_and_new_shards(
    pictures: Path, image_shards: Path, tmp_path: Path
) -> None:
    run_cli("pack-images", pictures, tmp_path / "old", "--samples-per-shard", 10, "--seed", 1)
    for writes in range(5):
        out = tmp_path / str(writes)
        shutil.copytree(tmp_path / "old", out)
        words = [str(word) for word in ("pack-images", pictures, out, "--samples-per-shard", 10)]
        assert run_and_kill(writes, *words[:2], watched(out), *words[3:], "--overwrite")
        try:
            main(words)
        except SystemExit:  # refused, as long as the record is the old one
            run_cli(*words, "--overwrite")
        assert files_without(out, RECORD) == files_without(image_shards, RECORD)


def test_too_many_files_that_are_no_images_fail_by_name(tmp_path: Path, capsys) -> None:
    for number in range(11):
        write_picture(tmp_path / f"in/good{number:02d}.jpg", number)
        (tmp_path / f"in/bad{number:02d}.jpg").write_text("text")
    run_cli("pack-images", tmp_path / "in", tmp_path / "out", "--no-shuffle", code=1)
    error = capsys.readouterr().err
    assert "11 of 22 images are unreadable" in error
    assert error.count("images-000000.tar:bad") == 10
    run_cli("pack-images", tmp_path / "in", tmp_path / "out", "--no-shuffle",
            "--max-bad-fraction", 0.5)  # fmt: skip
    assert "11 images, 11 skipped" in capsys.readouterr().out


def test_a_listed_file_gets_the_extension_of_its_format(tmp_path: Path) -> None:
    write_picture(tmp_path / "picture.jpg", 0)
    (tmp_path / "picture.jpg").rename(tmp_path / "picture.jfif")
    (tmp_path / "list.txt").write_text("picture.jfif\t3\n")
    run_cli("pack-images", tmp_path / "list.txt", tmp_path / "out")
    (members,) = content(tmp_path / "out").values()
    assert set(members) == {"jpeg", "cls"}


def test_images_beside_class_folders_are_pointed_out(tmp_path: Path, capsys) -> None:
    write_picture(tmp_path / "in/cat/a.jpg", 0)
    write_picture(tmp_path / "in/cover.jpg", 1)
    run_cli("pack-images", tmp_path / "in", tmp_path / "out")
    said = capsys.readouterr()
    assert "Warning: 1 image beside the sub-folders (cover.jpg" in said.err
    assert "0 classes, 2 images" in said.out


def test_masks_go_behind_their_images_and_come_back_with_them(tmp_path: Path) -> None:
    tree = write_ade_tree(tmp_path / "ade", {"training": 5})
    images, masks = tree / "images" / "training", tree / "annotations" / "training"
    out = tmp_path / "shards"
    run_cli("pack-images", images, out, "--masks", masks, "--samples-per-shard", 3)
    for key, members in content(out).items():
        assert list(members) == ["jpg", "mask.png"]
        assert members["jpg"] == (images / f"{key}.jpg").read_bytes()
        assert members["mask.png"] == (masks / f"{key}.png").read_bytes()
    of_shards = open_labelled(str(out), kind="mask")
    of_tree = open_labelled(str(images), kind="mask")
    assert {s["image"]: s["mask"] for s in of_shards.read(of_shards.places())} == {
        s["image"]: s["mask"] for s in of_tree.read(of_tree.places())
    }


def test_masks_must_be_there_and_fit_and_count_as_input(tmp_path: Path, capsys) -> None:
    tree = write_ade_tree(tmp_path / "ade", {"training": 3})
    images, masks = tree / "images" / "training", tree / "annotations" / "training"
    command = ("pack-images", images, tmp_path / "shards", "--masks", masks)
    mask = masks / "ADE_training_00000001.png"
    whole = mask.read_bytes()
    mask.unlink()
    run_cli(*command, code=1)
    assert f"{mask} does not exist" in capsys.readouterr().err
    mask.write_bytes(png(labels(0, (8, 8))))
    run_cli(*command, code=1)
    assert "no PNG of 52 x 40 pixels" in capsys.readouterr().err
    mask.write_bytes(png(np.zeros((40, 52, 3), np.uint8)))  # no command could use it later
    run_cli(*command, code=1)
    assert f"the mask {mask} has colours or alpha" in capsys.readouterr().err
    mask.write_bytes((images / "ADE_training_00000001.jpg").read_bytes())
    run_cli(*command, code=1)
    assert "it is JPEG, which may change class numbers" in capsys.readouterr().err
    mask.write_bytes(whole)
    run_cli(*command, "--overwrite")
    mask.write_bytes(whole + b"\0")
    run_cli(*command, code=1)
    assert "files" in capsys.readouterr().err


def test_a_mask_of_the_image_as_viewers_show_it_needs_exif(tmp_path: Path, capsys) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    noise((52, 40)).save(tmp_path / "in/a.jpg", exif=exif)
    for shape, words in (((52, 40), ()), ((40, 52), ("--exif", "apply"))):
        (tmp_path / "masks/a.png").write_bytes(png(np.zeros(shape, np.uint8)))
        command = ("pack-images", tmp_path / "in", "--masks", tmp_path / "masks")
        run_cli(*command, tmp_path / "out", *words, "--overwrite", code=1)
        remedy = "turn it, too" if words else "--exif apply turns the image as its EXIF says"
        assert capsys.readouterr().err.endswith(f"{remedy}\n")
        other = () if words else ("--exif", "apply")
        run_cli(*command, tmp_path / f"out{len(words)}", *other)


def test_what_another_node_writes_stays_where_the_clock_is_ahead(pictures, tmp_path, monkeypatch):
    """Files that a killed run left are deleted, by the clock of the disk."""
    now, written, left = time.time(), *(tmp_path / temporary_name() for _ in range(2))
    written.touch()
    left.touch()
    os.utime(left, (now - 3600, now - 3600))
    os.utime(written, (now + 60, now + 60))
    monkeypatch.setattr(time, "time", lambda: now + 2 * 24 * 3600)
    run_cli("pack-images", pictures, tmp_path)
    assert written.exists()
    assert not left.exists()


def test_exif_turns_images_if_that_is_asked_for(tmp_path: Path) -> None:
    write_photos(tmp_path / "in")
    for choice in ("ignore", "apply"):
        run_cli("pack-images", tmp_path / "in", tmp_path / choice, "--exif", choice)
        assert load(tmp_path / choice).common["exif"] == choice
    before, after = content(tmp_path / "ignore"), content(tmp_path / "apply")
    assert [key for key in before if before[key] != after[key]] == ["rotated"]
    sizes = [probe_header(packed["rotated"]["jpg"])[1:] for packed in (before, after)]
    assert sizes == [(64, 36), (36, 64)]


def test_even_shards_differ_by_one_image_at_most(pictures: Path, tmp_path: Path) -> None:
    words = ("--samples-per-shard", 7, "--no-shuffle")
    for name, more in (("full", ()), ("even", ("--even-shards",))):
        run_cli("pack-images", pictures, tmp_path / name, *words, *more)
    full, even = load(tmp_path / "full").shards, load(tmp_path / "even").shards
    assert [shard.samples for shard in full] == [7, 7, 7, 3]
    assert [shard.samples for shard in even] == [6, 6, 6, 6]
    assert list(content(tmp_path / "even")) == list(content(tmp_path / "full"))
