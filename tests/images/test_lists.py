"""Lists of images: what a line may hold, and what is said of those that cannot be used."""

import io
import os
import tarfile
import tracemalloc

import pytest

from milan_pipeline.errors import DataError
from milan_pipeline.images.lists import read_list
from milan_pipeline.images.source_files import NO_LABEL

MANY = 2000
JPEG = b"\xff\xd8\xff\xe0"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg", "c d.jpg", "sub/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    return tmp_path


def rows(folder, data, name="list.tsv"):
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    listed = read_list(folder / name)
    labels = [None if label == NO_LABEL else label for label in listed.label_n.tolist()]
    return list(zip(listed.files.names, labels, strict=True)), listed.classes


def refused(folder, data, name="list.tsv"):
    with pytest.raises(DataError) as caught:
        rows(folder, data, name)
    return str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_systems_have_it(folder, end):
    found, classes = rows(folder, end.join(["a.jpg\t3", "", "c d.jpg", "  ", "sub/e.jpg\t0"]))
    assert found == [("a.jpg", 3), ("c d.jpg", None), ("sub/e.jpg", 0)]
    assert classes == []


def test_classes_may_be_named(folder):
    found, classes = rows(folder, "a.jpg\tzebra fish\nb.jpg\tant\nc d.jpg\nsub/e.jpg\tant \n")
    assert classes == ["ant", "zebra fish"]
    assert found == [("a.jpg", 1), ("b.jpg", 0), ("c d.jpg", None), ("sub/e.jpg", 0)]


@pytest.mark.parametrize("label", ["²", "-1", "1.5", "1,000", "0\tcat"])
def test_what_is_neither_a_number_nor_a_name_is_no_class(folder, label):
    assert f"line 1: {label!r} is no class number" in refused(folder, f"a.jpg\t{label}\n")


def test_numbers_and_names_are_not_mixed(folder):
    assert "line 2: 'cat' is no class number" in refused(folder, "a.jpg\t0\nb.jpg\tcat\n")


def test_an_identifier_is_no_class_number(folder):
    said = refused(folder, f"a.jpg\t{10**20}\n")
    assert "line 1: '100000000000000000000' is too high for a class number" in said


def test_names_that_are_no_utf8_stay_what_they_are(folder):
    name = os.fsdecode(b"caf\xe9.jpg")
    (folder / name).write_bytes(JPEG)
    (folder / "line\u2028.jpg").write_bytes(JPEG)
    found, _ = rows(folder, b"caf\xe9.jpg\t1\n" + "line\u2028.jpg\n".encode())
    assert found == [(name, 1), ("line\u2028.jpg", None)]


def test_the_home_folder_may_be_written_short(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "sub"))
    assert rows(folder, "~/e.jpg\n") == ([("~/e.jpg", None)], [])


def test_one_file_does_not_come_twice_by_another_spelling(folder):
    said = refused(folder, f"a.jpg\n./a.jpg\t1\n{folder}/a.jpg\n")
    assert "line 2: './a.jpg' comes twice, first in line 1" in said


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("a.jpg 0", "put a tab between path and class"),
        ("a.jpg,0", "put a tab between path and class"),
        ("c d.jpg; cat", "put a tab between path and class"),
        ('"a.jpg"', "take the quotes off"),
        ("a.jpg ", "take the spaces around it off"),
        ("sub\\e.jpg", "write / in place of \\"),
        ("https://nowhere.invalid/z.jpg", "pictures are read from a disk: copy this one to it"),
        ("z.jpg", "write a path a line, then optionally a tab and a class"),
        ("# my list", "write a path a line, then optionally a tab and a class"),
    ],
)
def test_a_line_that_is_no_file_is_told_how_it_could_be_one(folder, line, remedy):
    said = refused(folder, f"b.jpg\n{line}\n")
    assert f"line 2: '{line}' is no file; {remedy}" in said


def test_json_has_a_sentence_of_its_own(folder):
    said = refused(folder, f"a.jpg,{'a long caption ' * 40}\n", "list.json")
    assert "line 1: 'a.jpg,a long caption" in said
    assert "…' is no file; write JSON lines, " in said
    assert len(said) < 300


def test_other_things_than_files_are_named(folder):
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    assert "'sub' is a folder; list its files" in refused(folder, "sub\n")
    assert "a link to nowhere.jpg, which does not exist" in refused(folder, "gone.jpg\n")
    assert "'pipe.jpg' is neither a file nor a folder" in refused(folder, "pipe.jpg\n")


def test_a_file_in_a_folder_that_cannot_be_entered_is_named(folder, monkeypatch):
    real = os.stat

    def stat(path, **how):
        if str(path).endswith("e.jpg"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    assert "line 1: 'sub/e.jpg' cannot be reached (Permission denied)" in refused(
        folder, "sub/e.jpg\n"
    )


def a_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (JPEG, "is a picture, no list"),
        (b"\x89PNG\r\n\x1a\n", "is a picture, no list"),
        (a_tar(), "is a tar, no list; unpack it"),
        (b"PK\x03\x04...", "is an archive, no list; unpack it"),
        (b"\x1f\x8b\x08...", "is an archive, no list; unpack it"),
        ("a.jpg\n".encode("utf-16"), "is no list in UTF-8; write paths as plain text"),
        (b"PAR1\x15\x00\x15", "is no list in UTF-8"),
    ],
)
def test_what_is_no_text_is_told_what_it_is(folder, data, message):
    assert message in refused(folder, data)


def test_a_class_that_is_not_utf_8_is_refused(folder):
    assert "tze' is not UTF-8; save the whole file as UTF-8" in refused(
        folder, b"a.jpg\tK\xe4tze\n"
    )


def test_many_lines_take_little_memory(folder):
    for number in range(MANY):
        (folder / f"many-{number:06d}.jpg").hardlink_to(folder / "a.jpg")
    names = "".join(f"many-{number:06d}.jpg\tcat\n" for number in range(MANY))
    (folder / "list.tsv").write_text(names)
    read_list(folder / "list.tsv")  # caches what is cached once
    tracemalloc.start()
    try:
        listed = read_list(folder / "list.tsv")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert listed.label_n.tolist() == [0] * MANY
    assert peak < 150 * MANY
