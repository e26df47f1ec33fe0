"""Which files make up a dataset, and the keys they get."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.sources import find_source, shuffled


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode(errors="surrogateescape"))


def listing(root: Path) -> list[tuple[str, int | None]]:
    return [(file.key, file.label) for file in find_source(root).files]


def test_a_class_tree(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.JPG", "cat/a.jpeg", "cat/deep/c.png", "dog/d.webp", "notes.txt")
    source = find_source(tmp_path)
    assert source.classes == ["cat", "dog"]
    assert [row["file"] for row in source.ignored] == ["notes.txt"]
    assert listing(tmp_path) == [("cat/a", 0), ("cat/deep/c", 0), ("dog/b", 1), ("dog/d", 1)]
    assert [file.path.read_bytes().decode() for file in source.files] == [
        "cat/a.jpeg", "cat/deep/c.png", "dog/b.JPG", "dog/d.webp",
    ]  # fmt: skip


def test_a_flat_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "sub/a.jpg", ".hidden.jpg")
    assert listing(tmp_path) == [("b", None), ("sub/a", None)]
    assert find_source(tmp_path).classes == []
    assert [row["file"] for row in find_source(tmp_path).ignored] == [".hidden.jpg"]


def test_strays_beside_class_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "dog/b.jpg")
    assert find_source(tmp_path).stray == []
    touch(tmp_path, "thumb.jpg", "notes.txt")
    assert find_source(tmp_path).stray == ["thumb.jpg"]
    assert find_source(tmp_path).classes == []
    touch(tmp_path / "flat", "a.jpg", "b.jpg")
    assert find_source(tmp_path / "flat").stray == []


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "all", "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "subset").mkdir()
    (tmp_path / "subset" / "dog").symlink_to(tmp_path / "all" / "dog")
    assert listing(tmp_path / "subset") == [("dog/b", 0)]


def test_a_list(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "x/b.jpg", "c c.png")
    (tmp_path / "list.tsv").write_text("\ufeffx/b.jpg\t3\r\na.jpg\n\nc c.png\t0\n", "utf-8")
    rows = listing(tmp_path / "list.tsv")
    assert rows[:2] == [("x/b", 3), ("a", None)]
    assert rows[2][0].startswith("c_c-")
    assert rows[2][1] == 0
    (tmp_path / "absolute.tsv").write_text(f"{tmp_path}/a.jpg")
    assert not listing(tmp_path / "absolute.tsv")[0][0].startswith("/")


def test_names_of_a_list_without_an_extension_keep_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "v1.2/a", "v1.2/b", "c", "d.jfif")
    (tmp_path / "list.tsv").write_text("v1.2/a\nv1.2/b\n./c\nd.jfif\n", "utf-8")
    keys = [key for key, _ in listing(tmp_path / "list.tsv")]
    assert [key.split("-")[0] for key in keys] == ["v1_2/a", "v1_2/b", "_/c", "d"]


def test_a_list_may_name_its_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.tsv").write_text("a.jpg\tdog\nb.jpg\tcat\n")
    source = find_source(tmp_path / "list.tsv")
    assert source.classes == ["cat", "dog"]
    assert [file.label for file in source.files] == [1, 0]


def test_an_empty_folder_is_a_class_without_images(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "emu/b.jpg", "labels/a.txt")
    (tmp_path / "dog").mkdir()
    source = find_source(tmp_path)
    assert source.classes == ["cat", "dog", "emu"]
    assert [file.label for file in source.files] == [0, 2]
    assert source.others == ["labels"]


def test_a_class_of_pictures_that_are_not_read_keeps_its_number(tmp_path: Path) -> None:
    touch(tmp_path, "ant/a.tif", "bee/b.jpg", "logo.gif")
    source = find_source(tmp_path)
    assert source.classes == ["ant", "bee"]
    assert [file.label for file in source.files] == [0, 1]
    assert list(source.files.unread()) == ["ant/a.tif"]
    assert [row["file"] for row in source.ignored] == ["logo.gif"]


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nothing")
    for name, message in {
        "nowhere": "does not exist",
        "x" * 300: "x… cannot be reached .File name too long",
        "a\0b": "cannot be reached",
        "gone": "is a link to nothing, which does not exist",
        "/dev/null": "is neither a folder nor a list file",
    }.items():
        with pytest.raises(ConfigError, match=message):
            find_source(tmp_path / name)


def test_a_source_without_images_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "readme.md")
    with pytest.raises(ConfigError, match="holds no image"):
        find_source(tmp_path)
    touch(tmp_path, "a.heic", "b.heic")
    with pytest.raises(ConfigError, match=r"but 2 pictures of formats .*a\.heic.*convert them"):
        find_source(tmp_path)
    touch(tmp_path / "tars", "n01.tar", "n02.tar")
    with pytest.raises(ConfigError, match=r"but 2 archives \(n01\.tar, …\); unpack them"):
        find_source(tmp_path / "tars")
    (tmp_path / "list.tsv").write_text("\n")
    with pytest.raises(ConfigError, match="lists no image"):
        find_source(tmp_path / "list.tsv")


def test_awkward_names_give_distinct_keys_without_dots(tmp_path: Path) -> None:
    names = [
        "a.jpg", "a.png", "A.jpg", "b.c.jpg", "b.d.jpg", "b c.jpg", "b_c.jpg", "ä.jpg", "ö.jpg",
        "x.y/a.jpg", "x_y/a.jpg", os.fsdecode(b"\xff.jpg"), os.fsdecode(b"\xfe.jpg"),
    ]  # fmt: skip
    touch(tmp_path, *names)
    keys = [key for key, _ in listing(tmp_path)]
    assert len({key.lower() for key in keys}) == len(names)
    assert not any("." in key for key in keys)
    assert all(key.isascii() for key in keys)


PART = st.text(st.sampled_from("aAbä .-_²"), min_size=1, max_size=4).filter(
    lambda part: part.strip(".") != "" and part == part.strip()
)
NAME = st.tuples(st.lists(PART, min_size=1, max_size=2), st.sampled_from(["jpg", "png", "JPEG"]))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=st.lists(NAME, min_size=1, max_size=8))
def test_keys_are_unique_and_without_dots(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    root = tmp_path_factory.mktemp("s")
    names = dict.fromkeys("/".join(parts) + f".{extension}" for parts, extension in rows)
    touch(root, *names)
    (root / "list.tsv").write_text("\n".join(names), "utf-8")
    keys = [key for key, _ in listing(root / "list.tsv")]
    assert len({key.lower() for key in keys}) == len(names)
    assert not any("." in key or key.startswith("/") for key in keys)


def test_the_fingerprint_is_of_names_sizes_and_classes_not_of_times(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "dog/b.jpg")
    first = find_source(tmp_path).fingerprint()
    assert first.startswith("2 images of 18 bytes (names ")
    os.utime(tmp_path / "cat" / "a.jpg", ns=(1, 1))
    assert find_source(tmp_path).fingerprint() == first
    (tmp_path / "bee").mkdir()
    with_class = find_source(tmp_path).fingerprint()
    (tmp_path / "cat" / "a.jpg").write_bytes(b"longer than before")
    longer = find_source(tmp_path).fingerprint()
    (tmp_path / "cat" / "a.jpg").rename(tmp_path / "cat" / "c.jpg")
    assert len({first, with_class, longer, find_source(tmp_path).fingerprint()}) == 4


def test_shuffling_depends_on_the_seed_alone(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.jpg" for number in range(20)))
    files = find_source(tmp_path).files
    first = list(shuffled(files, 1))
    assert first == list(shuffled(files, 1))
    assert first not in (list(files), list(shuffled(files, 2)))
    assert sorted(file.key for file in first) == sorted(file.key for file in files)


def test_parquet_files_in_sub_folders_are_pointed_at(tmp_path: Path) -> None:
    touch(tmp_path, "README.md", "data/train-00000-of-00001.parquet")
    with pytest.raises(ConfigError, match=r"1 Parquet files .*give the folder that they lie in"):
        find_source(tmp_path)
