"""What is said of folders that are probably not the class tree that is meant."""

import re

import pytest

from milan_pipeline.images.class_tree import (
    number_of_classes,
    some,
    warn_of_lost_classes,
    warn_of_source,
)
from milan_pipeline.images.sources import find_source

JPEG = b"\xff\xd8\xff\xe0"


@pytest.fixture
def said(tmp_path, caplog):
    """Return what is said of a folder with these files."""

    def of(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(
                b"text" if name.endswith(("txt", "tif", "tar", "zip")) else JPEG
            )
        source = find_source(tmp_path)
        caplog.clear()
        warn_of_source(source, tmp_path)
        return [record.getMessage() for record in caplog.records]

    return of


def test_nothing_is_said_of_a_class_tree(said):
    assert said("cat/a.jpg", "dog/b.jpg", "dog/deep/c.jpg", "readme.txt") == []


def test_nothing_is_said_where_each_class_has_its_images_in_a_folder_of_one_name(said):
    assert said("n01/images/a.jpg", "n02/images/b.jpg") == []


def test_folders_called_by_numbers_that_are_not_the_classes_numbers_are_pointed_out(said):
    (text,) = said(*(f"{number}/a.jpg" for number in range(11)))
    assert "so that 10 is class 2; name them with leading zeros" in text


def test_nothing_is_said_of_numbers_in_order(said):
    assert said("01/a.jpg", "02/b.jpg", "10/c.jpg") == []


def test_names_that_differ_in_capitals_alone_are_pointed_out(said):
    (text,) = said("Cat/a.jpg", "cat/b.jpg", "dog/c.jpg")
    assert "the classes Cat and cat of" in text


def test_one_class_among_many_may_be_called_train(said):
    assert said("boat/a.jpg", "car/b.jpg", "train/c.jpg") == []


def test_a_wrapper_folder_is_pointed_out(said, tmp_path):
    (text,) = said("photos/cat/a.jpg", "photos/dog/b.jpg")
    assert (
        f"has only one class, photos; if the classes are the folders below, give {tmp_path}" in text
    )


@pytest.mark.parametrize("parts", [("train", "val"), ("Training", "TEST"), ("images", "masks")])
def test_parts_of_a_data_set_are_pointed_out(said, tmp_path, parts):
    (text,) = said(*(f"{part}/cat/a.jpg" for part in parts))
    assert "like parts of a data set" in text
    assert all(f"{tmp_path}/{part}" in text for part in parts)


def test_classes_of_nothing_but_sub_folders_are_pointed_out(said):
    (text,) = said("animals/cat/a.jpg", "animals/dog/b.jpg", "plants/fir/c.jpg")
    assert "each class of" in text
    assert "has nothing but sub-folders; if those are the classes, give one of" in text


def test_other_formats_and_folders_without_pictures_are_counted(said):
    first, second = said("cat/a.jpg", "dog/b.tif", "dog/c.tif", "labels/a.txt")
    assert "2 of 3 pictures in" in first
    assert "(dog/b.tif, dog/c.tif); convert to" in first
    assert "1 folder without a picture in" in second
    assert "(labels)" in second


def test_archives_that_are_left_out_are_named(said):
    (text,) = said("n01/a.jpg", "n02/b.jpg", "n03.tar", "n04.zip")
    assert "2 archives in" in text
    assert "(n03.tar, n04.zip); unpack them" in text


def test_classes_without_a_readable_image_are_named(tmp_path, caplog):
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "emu").mkdir()
    source = find_source(tmp_path)
    warn_of_lost_classes(source, {"dog/b"})
    assert "2 of 3 classes have no image that was packed (dog, emu)" in caplog.text


def test_class_numbers_with_gaps_are_pointed_out(tmp_path, caplog):
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(JPEG)
    for numbers, text in (((1, 2, 4), "2 of the class numbers 0 to 4"), ((0, 1, 1), "")):
        rows = (f"{name}.jpg\t{number}\n" for name, number in zip("abc", numbers, strict=True))
        (tmp_path / "list.txt").write_text("".join(rows))
        source = find_source(tmp_path / "list.txt")
        warn_of_source(source, tmp_path / "list.txt")
        assert number_of_classes(source) == len(set(numbers))
        assert (f"{text} have no image" in caplog.text) if text else not caplog.records
        caplog.clear()


def test_many_names_are_cut_short():
    assert some(list("abcdefg")) == "a, b, c, d, e, …"
    assert some(["a"]) == "a"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("a cat", "a dog"), r"each image of .* has a class of its own \(a cat, a dog\)"),
        (("0", ""), "1 of 2 images of .* has no class"),
        (("cat", "cat"), None),
        (("", ""), None),
        (("0", "1"), None),
    ],
)
def test_lists_whose_classes_look_wrong_are_pointed_out(tmp_path, caplog, labels, message):
    lines = []
    for number, label in enumerate(labels):
        (tmp_path / f"{number}.jpg").write_bytes(JPEG)
        lines.append(f"{number}.jpg\t{label}\n")
    path = tmp_path / "list.tsv"
    path.write_text("".join(lines))
    warn_of_source(find_source(path), path)
    if message is None:
        assert not caplog.records
    else:
        assert re.search(message, caplog.text)
