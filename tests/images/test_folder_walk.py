"""What lies below a folder: pictures by name and bytes, links, hidden and unreadable folders."""

import errno
import os
import socket

import pytest

from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.images.folder_walk import HIDDEN, LOOP, NO_FILE, NO_PICTURE, SYSTEM, walk_folder

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"
WEBP, HEIC = b"RIFF1234WEBPVP8 ", b"\0\0\0\x18ftypheic"


def put(root, **contents):
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def touch(root, *names):
    put(root, **dict.fromkeys(names, JPEG))


def names(walk):
    return [file.name for file in walk.files]


def reasons(walk):
    return {row["file"]: row["reason"] for row in walk.ignored}


def failing(monkeypatch, function, path, *errors):
    """Have a function of `os` raise these errors for a path, one at each call, then work."""
    real, left = getattr(os, function), list(errors)

    def call(place=".", **how):
        if str(place) == str(path) and left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number), str(place))
        return real(place, **how)

    monkeypatch.setattr(os, function, call)


def test_what_begins_like_an_image_is_one_whatever_its_name(tmp_path):
    put(tmp_path, **{"a.jfif": JPEG, "b.jpg?size=large": JPEG, "c": PNG, "d.bin": WEBP})
    put(tmp_path, **{"notes.txt": b"about", "empty": b"", "e.tif": JPEG})
    walk = walk_folder(tmp_path)
    assert names(walk) == ["a.jfif", "b.jpg?size=large", "c", "d.bin", "e.tif"]
    assert {file.kind for file in walk.files} == {"image"}
    assert reasons(walk) == {"notes.txt": NO_PICTURE, "empty": NO_PICTURE}


def test_pictures_of_other_formats_are_told_from_other_files(tmp_path):
    put(tmp_path, **{"a.TIF": b"II*\0", "b.bmp": b"BM", "c": HEIC, "d": b"GIF89a", "e": b"MM\0*"})
    assert {file.name: file.kind for file in walk_folder(tmp_path).files} == dict.fromkeys(
        ["a.TIF", "b.bmp", "c", "d", "e"], "other"
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch, number):
    touch(tmp_path, "cat/a.jpg", "dog/b.jpg")
    failing(monkeypatch, "scandir", tmp_path / "cat", number)
    with pytest.raises(StorageError, match=r"cat cannot be listed .*chmod u\+rx"):
        walk_folder(tmp_path)


def test_a_folder_that_cannot_be_entered_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "cat/a.jpg")
    for function in ("stat", "lstat"):
        failing(monkeypatch, function, tmp_path / "cat/a.jpg", *[errno.EACCES] * 9)
    with pytest.raises(StorageError, match=r"cat cannot be entered \(Permission denied\)"):
        walk_folder(tmp_path)


@pytest.mark.parametrize("function", ["scandir", "stat"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_network_file_system_is_asked_again(tmp_path, monkeypatch, function, number):
    touch(tmp_path, "cat/a.jpg")
    failing(monkeypatch, function, tmp_path / "cat", number, number)
    assert names(walk_folder(tmp_path)) == ["cat/a.jpg"]


def test_a_file_that_may_be_an_image_but_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    put(tmp_path, **{"a": JPEG, "b.jfif": JPEG, "c.jpg?w=1": JPEG, "d.tif": b"II*", "e.txt": b"x"})
    real = open

    def refuse(path, *args, **how):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **how)

    monkeypatch.setattr("builtins.open", refuse)
    walk = walk_folder(tmp_path)
    monkeypatch.undo()
    assert names(walk) == ["a", "b.jfif", "c.jpg?w=1", "d.tif"]
    assert reasons(walk) == {"e.txt": "it cannot be read (Permission denied)"}


def test_a_folder_that_stays_unreadable_ends_the_walk(tmp_path, monkeypatch):
    touch(tmp_path, "cat/a.jpg")
    failing(monkeypatch, "scandir", tmp_path / "cat", *[errno.EIO] * 100)
    with pytest.raises(StorageError, match=r"cat cannot be listed: 13 tries failed"):
        walk_folder(tmp_path)


def test_hidden_folders_are_left_out_file_by_file(tmp_path):
    touch(
        tmp_path, ".ipynb_checkpoints/0.jpg", "cat/.thumbs/deep/1.jpg", "cat/a.jpg", "cat/._a.jpg"
    )
    walk = walk_folder(tmp_path)
    assert names(walk) == ["cat/a.jpg"]
    hidden = [".ipynb_checkpoints/0.jpg", "cat/._a.jpg", "cat/.thumbs/deep/1.jpg"]
    assert reasons(walk) == dict.fromkeys(hidden, HIDDEN)
    assert walk.empty == []


def test_a_hidden_folder_need_not_be_readable(tmp_path, monkeypatch):
    touch(tmp_path, ".Trash-1000/0.jpg", "a.jpg")
    failing(monkeypatch, "scandir", tmp_path / ".Trash-1000", errno.EACCES)
    assert reasons(walk_folder(tmp_path)) == {".Trash-1000": HIDDEN}


@pytest.mark.parametrize("folder", ["__MACOSX", "@eaDir", "#recycle", "lost+found"])
def test_folders_of_systems_are_left_out_with_a_warning(tmp_path, folder, caplog):
    touch(tmp_path, f"{folder}/cat/0.jpg", "cat/a.jpg", f"cat/{folder}/1.jpg")
    walk = walk_folder(tmp_path)
    assert names(walk) == ["cat/a.jpg"]
    assert set(reasons(walk).values()) == {SYSTEM}
    assert f"2 files of systems in {tmp_path} are left out" in caplog.text


def test_a_link_to_a_folder_above_is_not_walked_again(tmp_path, caplog):
    touch(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "more").symlink_to(tmp_path)
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "cat" / "cat").symlink_to(tmp_path / "cat")
    walk = walk_folder(tmp_path)
    assert names(walk) == ["cat/a.jpg", "dog/b.jpg"]
    assert reasons(walk) == dict.fromkeys(["again", "cat/cat", "cat/up", "more"], LOOP)
    assert walk.empty == []
    assert "4 links to folders above" in caplog.text


def test_folders_that_are_reached_twice_are_said(tmp_path, caplog):
    touch(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "cat" / "dog").symlink_to("../dog")
    assert names(walk_folder(tmp_path)) == ["cat/a.jpg", "cat/dog/b.jpg", "dog/b.jpg"]
    assert "1 folder below" in caplog.text
    assert "come more than once" in caplog.text


def test_links_to_folders_of_links_come_to_an_end(tmp_path):
    touch(tmp_path, "19/a.jpg")
    for number in range(19):
        (tmp_path / f"{number}").mkdir()
        for name in "xy":
            (tmp_path / f"{number}" / name).symlink_to(f"../{number + 1}")
    with pytest.raises(DataError, match=r"is reached by over 100 ways"):
        walk_folder(tmp_path)


def test_links_that_lead_nowhere_are_files_that_cannot_be_read(tmp_path):
    touch(tmp_path, "cat/a.jpg")
    (tmp_path / "cat" / "gone.jpg").symlink_to("../.git/annex/gone.jpg")
    (tmp_path / "cat" / "self.png").symlink_to("self.png")
    (tmp_path / "cat" / "notes.txt").symlink_to("gone.txt")
    walk = walk_folder(tmp_path)
    faults = {file.name: file.fault for file in walk.files}
    assert faults == {
        "cat/a.jpg": None,
        "cat/gone.jpg": "a link to ../.git/annex/gone.jpg, which does not exist",
        "cat/self.png": "a link to self.png, which leads back to itself",
    }
    assert reasons(walk) == {"cat/notes.txt": "a link to gone.txt, which does not exist"}


@pytest.mark.parametrize("name", ["dog", "v1.5", "cat/more"])
def test_a_link_that_may_be_one_to_a_folder_must_lead_somewhere(tmp_path, name):
    touch(tmp_path, "cat/a.jpg")
    (tmp_path / name).symlink_to("/nowhere/dog")
    with pytest.raises(MissingDataError, match=r"is a link to /nowhere/dog, which does not exist"):
        walk_folder(tmp_path)


def test_what_is_no_regular_file_is_ignored_by_name(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    walk = walk_folder(tmp_path)
    assert names(walk) == ["a.jpg"]
    assert reasons(walk) == dict.fromkeys(["pipe.jpg", "socket.jpg", "zero.jpg"], NO_FILE)


def test_folders_without_pictures_are_told_apart(tmp_path):
    touch(tmp_path, "cat/a.jpg", "dog/.gitkeep")
    put(tmp_path, **{"labels/a.txt": b"about", "fox/Thumbs.db": b"\xd0\xcf"})
    (tmp_path / "emu" / "deep").mkdir(parents=True)
    walk = walk_folder(tmp_path)
    assert walk.empty == ["dog", "emu", "fox"]
    assert walk.others == ["labels"]


def test_a_folder_that_is_to_be_left_out_is_not_there(tmp_path):
    touch(tmp_path, "cat/a.jpg", "out/b.jpg")
    (tmp_path / "cat" / "link").symlink_to(tmp_path / "out")
    walk = walk_folder(tmp_path, leave_out=(tmp_path / "out", tmp_path / "nowhere"))
    assert names(walk) == ["cat/a.jpg"]
    assert walk.empty == []
    assert walk.ignored == []


def test_pictures_come_in_the_order_of_their_paths_part_by_part(tmp_path):
    names = ["a/z.jpg", "a!/b.jpg", "a.jpg", "a/b/c.jpg", "a/b!.jpg", "a/b.jpg", "B.jpg", "é/a.jpg"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = [file.name for file in walk_folder(tmp_path).files]
    assert found == sorted(names, key=lambda name: name.split("/"))
