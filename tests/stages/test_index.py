"""index: tars that others made get an index and a manifest."""

import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset

from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.errors import MismatchError
from milan_pipeline.provenance.progress_reports import read_reports
from milan_pipeline.report.folder_kind import folder_kind
from milan_pipeline.report.folder_status import folder_status
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.random_access import SampleReader
from milan_pipeline.shards.sequential import index_shard
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
    assert "nothing to do, 1 shard is listed" in capsys.readouterr().out
    assert (foreign / "manifest.json").read_bytes() == first
    run_cli("index", foreign / "web-{000,001}.tar", "--dry-run")
    said = capsys.readouterr().out
    assert "shards to index: 1, listed: 1" in said
    assert f"bytes to read: {(foreign / 'web-001.tar').stat().st_size} (" in said
    assert "free: " in said
    run_cli("index", foreign / "web-001.tar")
    assert names(foreign) == ["web-000.tar", "web-001.tar"]


def test_samples_of_several_images_are_warned_of(tmp_path: Path, capsys) -> None:
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as tar:
        tar.write({"__key__": "a", "png": b"depth", "jpg": b"\xff\xd8\xff"})
    run_cli("index", tmp_path / "x.tar")
    said = capsys.readouterr().err
    assert "have several images (.jpg, .png), of which .jpg is taken; name another by" in said


def test_a_tar_that_is_there_twice_is_warned_of(foreign: Path, capsys) -> None:
    (foreign / "copy.tar").write_bytes((foreign / "web-000.tar").read_bytes())
    run_cli("index", foreign / "web-000.tar", foreign / "copy.tar")
    said = capsys.readouterr().err
    assert "1 tar of" in said
    assert "repeat others (copy is a copy of web-000), so that images come twice" in said


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


def test_a_tar_given_by_two_paths_is_listed_once(foreign: Path, tmp_path: Path) -> None:
    other = foreign / ".." / foreign.name
    run_cli("index", foreign / "web-000.tar", other / "web-000.tar", "--out", tmp_path / "out")
    assert names(tmp_path / "out") == [str(foreign.resolve() / "web-000.tar")]


def test_a_process_at_work_reports_from_the_first_tar_on(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kinds = tmp_path / "out", []

    def look(*arguments: Any) -> Any:
        kinds.append(folder_kind(str(out)))
        return index_shard(*arguments)

    monkeypatch.setattr("milan_pipeline.stages.index.index_shard", look)
    run_cli("index", foreign / "web-{000,001}.tar", "--out", out)
    assert kinds == ["image shards"] * 2
    (report,) = read_reports(str(out))
    assert (report.name, report.state) == ("index", "done")
    assert (report.units, report.units_done, report.images_done) == (2, 2, 6)
    (foreign / "web-002.tar").write_bytes(b"no tar")
    run_cli("index", foreign / "web-{000..002}.tar", "--out", out, code=1)
    assert folder_status(str(out)).state == "failed"
    (report,) = read_reports(str(out))
    assert (report.state, report.units, report.units_done) == ("failed", 3, 2)


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
    """Names that differ by capitals count as one: many disks would keep one index for both."""
    shutil.copytree(foreign, tmp_path / "other")
    (tmp_path / "other/web-001.tar").rename(tmp_path / "other/Web-000.tar")
    for name, said in (("web-000.tar", ""), ("Web-000.tar", " and Web-000.tar; rename one")):
        tars = [foreign / "web-000.tar", tmp_path / "other" / name]
        run_cli("index", *tars, code=2)
        assert "URLS lie in 2 folders; give --out, the folder for the" in capsys.readouterr().err
        run_cli("index", *tars, "--out", tmp_path / "out", code=1)
        assert f"two shards are called web-000.tar{said}" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


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


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar of files, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    write_picture(tmp_path / "picture.jpg", 0)
    return (tmp_path / "picture.jpg").read_bytes()


def test_a_tar_whose_images_have_a_field_of_their_own(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {f"sample{n}.input.jpg": picture for n in range(3)}
    tar = tar_of(tmp_path / "x.tar", names | {"sample9.cls": b"1"})
    run_cli("index", tar, code=1)
    error = capsys.readouterr().err
    assert "holds no image (it has sample0.input.jpg)" in error
    assert "give --image-field input.jpg" in error
    run_cli("index", tar, "--image-field", "input.jpg")
    assert "3 images, 1 left out" in capsys.readouterr().out
    manifest = load_manifest(str(tmp_path), kind="images")
    assert manifest.shards[0].details["image_field"] == "input.jpg"
    run_cli("index", tar, "--image-field", ".Input.JPG")
    assert "nothing to do" in capsys.readouterr().out


def test_labels_are_found_beside_a_named_field(tmp_path: Path, picture: bytes) -> None:
    members = {
        f"{n}.{end}": data for n in "ab" for end, data in (("in.jpg", picture), ("cls", b"1"))
    }
    run_cli("index", tar_of(tmp_path / "x.tar", members), "--image-field", "in.jpg")
    table = open_labelled(str(tmp_path), kind="class")
    assert (table.samples, table.class_count) == (2, 2)


@pytest.mark.parametrize("endings", ["jpg cls", "cls jpg"])
def test_members_that_lie_apart_from_their_sample_are_refused(
    endings: str, tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"jpg": picture, "cls": b"1"}
    members = {f"{n}.{end}": content[end] for end in endings.split() for n in range(3)}
    run_cli("index", tar_of(tmp_path / "x.tar", members), code=1)
    error = capsys.readouterr().err
    assert "x.tar holds members of '0' apart from each other" in error
    assert "make it again with `tar --sort=name -cf NEW.tar -C FOLDER .`" in error
    for name, data in members.items():
        (tmp_path / "FOLDER").mkdir(exist_ok=True)
        (tmp_path / "FOLDER" / name).write_bytes(data)
    command = ["tar", "--sort=name", "-cf", "NEW.tar", "-C", "FOLDER", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    run_cli("index", tmp_path / "NEW.tar")
    assert open_labelled(str(tmp_path), kind="class").samples == 3


def test_a_tar_of_tars_is_to_be_unpacked(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = tar_of(tmp_path / "in.tar", {"0.jpg": picture}).read_bytes()
    run_cli("index", tar_of(tmp_path / "out" / "x.tar", {"n01440764.tar": inner}), code=1)
    assert "holds no image (it has n01440764.tar); unpack it" in capsys.readouterr().err


@pytest.mark.parametrize("members", [{}, {"photo": b"1"}])
def test_a_tar_without_a_sample_is_no_set_of_images(
    tmp_path: Path, members: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("index", tar_of(tmp_path / "x.tar", members), code=1)
    assert "hold no image" in capsys.readouterr().err


def test_a_few_samples_without_an_image_are_named_and_many_are_refused(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {(f"photo.{n}.jpg" if n % 2 else f"photo{n}.jpg"): picture for n in range(8)}
    run_cli("index", tar_of(tmp_path / "few" / "x.tar", few))
    said = capsys.readouterr()
    assert "4 of 8 samples" in said.err
    assert "photo has no image member, only .1.jpg" in said.err
    many = {f"{n}.{'txt' if n < 11 else 'jpg'}": picture for n in range(20)}
    tar = tar_of(tmp_path / "many" / "x.tar", many)
    run_cli("index", tar, code=1)
    assert "11 of 20 samples" in capsys.readouterr().err
    with pytest.raises(MismatchError):
        load_manifest(str(tmp_path / "many"), kind="images")
    run_cli("index", tar, "--max-bad-fraction", 0.6)
    assert load_manifest(str(tmp_path / "many"), kind="images").samples == 9


def test_files_that_macos_adds_are_no_lost_images(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("._{}.jpg", "{}.jpg", "__MACOSX/in/._{}.jpg")
    members = {name.format(n): picture for n in range(20) for name in names}
    run_cli("index", tar_of(tmp_path / "x.tar", members))
    assert capsys.readouterr().err == ""


def test_one_tar_that_is_damaged_does_not_keep_the_others_from_the_list(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = (foreign / "web-000.tar").read_bytes()
    (foreign / "web-000.tar").write_bytes(sound[:-10_240])
    run_cli("index", foreign / "web-{000..001}.tar", code=1)
    assert "web-000.tar is damaged or truncated" in capsys.readouterr().err
    listed = load_manifest(str(foreign), kind="images", allow_unfinished=True)
    assert [shard.name for shard in listed.shards] == ["web-001.tar"]
    assert not listed.complete
    (foreign / "web-000.tar").write_bytes(sound)
    run_cli("index", foreign / "web-{000..001}.tar")
    assert names(foreign) == ["web-000.tar", "web-001.tar"]


def test_of_many_damaged_tars_the_first_are_named(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tar in foreign.glob("*.tar"):
        tar.write_bytes(b"not a tar" * 99)
    run_cli("index", foreign / "web-{000..001}.tar", code=1)
    error = capsys.readouterr().err
    assert "2 of 2 tars cannot be indexed" in error
    assert "web-000.tar" in error
    assert "web-001.tar" in error


@pytest.mark.parametrize("zeros", [0, 512, 1024])
def test_one_block_of_zeros_ends_a_tar_and_none_can_be_added(
    tmp_path: Path, picture: bytes, zeros: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = tar_of(tmp_path / "x.tar", {"a.jpg": picture})
    end = 512 + -(-len(picture) // 512) * 512
    tar.write_bytes(tar.read_bytes()[: end + zeros])
    run_cli("index", tar, code=0 if zeros else 1)
    if not zeros:
        assert "append 1024 zero bytes, as `truncate --size=+1024` does" in capsys.readouterr().err
        tar.write_bytes(tar.read_bytes() + bytes(1024))
        run_cli("index", tar)
    assert load_manifest(str(tmp_path), kind="images").samples == 1


def test_tars_that_were_joined_by_cat_are_told_from_damage(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = tar_of(tmp_path / "x.tar", {"a.jpg": picture})
    tar.write_bytes(2 * tar.read_bytes())
    run_cli("index", tar, code=1)
    assert "join them by `tar --concatenate`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(600), "is a zip file"),
        (b"<!DOCTYPE html>" + b" " * 600, "is a web page"),
        (b"", "is damaged or truncated"),
        (b"not a tar" * 1000, "is damaged or truncated"),
    ],
)
def test_what_is_called_a_tar_and_is_none(
    tmp_path: Path, data: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    run_cli("index", tmp_path / "x.tar", code=1)
    assert said in capsys.readouterr().err


def test_a_tar_of_links_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").symlink_to("elsewhere.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "a.jpg", "a.jpg")
    run_cli("index", tmp_path / "x.tar", code=1)
    assert "a.jpg is a link, which is not followed" in capsys.readouterr().err


def test_a_web_server_is_refused_as_the_place_of_an_index_at_once(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("index", foreign / "web-000.tar", "--out", "http://127.0.0.1:1/x", code=1)
    assert "web servers are only read from" in capsys.readouterr().err


def test_a_record_that_could_not_be_written_is_written_by_the_next_run(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a kill or a full disk leaves it: the manifest is written before the record."""
    run_cli("index", foreign / "web-{000,001}.tar")
    record = (foreign / "index.json").read_bytes()
    (foreign / "index.json").unlink()
    run_cli("index", foreign / "web-{000,001}.tar")
    assert (
        json.loads((foreign / "index.json").read_text())["counts"] == json.loads(record)["counts"]
    )
    run_cli("index", foreign / "web-{000,001}.tar")
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("manifest.json", r"give its folder to --images, or give its tars"),
        ("", r"is a folder; give its tars, as .*\*\.tar"),
        ("*.tar", r"is a pattern; have the shell expand the \*, without quotes, or name"),
    ],
)
def test_what_is_given_in_place_of_tars(
    foreign: Path, given: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("index", foreign / given, "--out", foreign, code=2)
    assert re.search(remedy, capsys.readouterr().err)


def test_the_label_of_a_volume_is_no_sample(foreign: Path, capsys) -> None:
    with tarfile.open(foreign / "web-000.tar") as tar:
        tar.extractall(foreign / "in", filter="data")
    subprocess.run(
        ["tar", "--sort=name", "-cf", "labelled.tar", "-V", "disk 1", "-C", "in", "."],
        cwd=foreign, check=True,
    )  # fmt: skip
    run_cli("index", foreign / "labelled.tar", "--max-bad-fraction", 0)
    assert "1 shard, 3 images, 0 left out" in capsys.readouterr().out


def test_packs_of_other_classes_are_warned_of_and_names_of_the_same_are_kept(
    tmp_path: Path, capsys
) -> None:
    """Class 0 of one pack is not class 0 of another."""
    for part, classes in (("a", "cat dog"), ("b", "dog emu"), ("c", "cat dog")):
        for name in classes.split():
            write_picture(tmp_path / "in" / part / name / "0.jpg", ord(part))
        words = ("--prefix", part, "--quiet")
        run_cli("pack-images", tmp_path / "in" / part, tmp_path / part, *words)
    a, b, c = (tmp_path / part / f"{part}-000000.tar" for part in "abc")
    capsys.readouterr()
    run_cli("index", a, c, "--out", tmp_path / "ac")
    assert capsys.readouterr().err == ""
    assert load_manifest(str(tmp_path / "ac"), kind="images").common == {"classes": ["cat", "dog"]}
    run_cli("index", a, b, "--out", tmp_path / "ab")
    told = "differ (class 0 is cat and dog), so that equal numbers are"
    assert told in capsys.readouterr().err
    assert load_manifest(str(tmp_path / "ab"), kind="images").common == {}
    for later in (b, c):  # on top of what is listed
        run_cli("index", a, "--out", tmp_path / later.stem)
        run_cli("index", later, "--out", tmp_path / later.stem)
        is_same = later == c
        assert (told in capsys.readouterr().err) != is_same
        common = load_manifest(str(tmp_path / later.stem), kind="images").common
        assert common == ({"classes": ["cat", "dog"]} if is_same else {})
