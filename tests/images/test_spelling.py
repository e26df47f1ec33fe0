"""Names in two forms of Unicode, as Linux and macOS write them: classes, masks and lists."""

import unicodedata

import pytest

from milan_pipeline.data.class_names import require_same_names
from milan_pipeline.errors import DataError
from milan_pipeline.images.sources import find_source

ONE, TWO = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"


def touch(path, data=JPEG):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_class_folders_that_look_alike_are_refused(tmp_path):
    for name in (ONE, TWO):
        touch(tmp_path / name / "0.jpg")
    with pytest.raises(DataError, match=r"two classes caf.*'cafe\\u0301' and 'caf\\xe9'.*rename"):
        find_source(tmp_path)


def test_class_folders_that_differ_in_spaces_are_refused(tmp_path):
    for name in ("cat", "cat "):
        touch(tmp_path / name / "0.jpg")
    with pytest.raises(
        DataError, match=r"two classes cat, which differ in spaces .*'cat' and 'cat '"
    ):
        find_source(tmp_path)


def test_classes_of_a_list_that_look_alike_are_refused(tmp_path):
    for name in "ab":
        touch(tmp_path / f"{name}.jpg")
    (tmp_path / "list").write_text(f"a.jpg\t{ONE}\nb.jpg\t{TWO}\n")
    with pytest.raises(DataError, match="two classes caf"):
        find_source(tmp_path / "list")


def test_a_mask_may_be_spelled_otherwise_than_its_image(tmp_path):
    touch(tmp_path / "in" / ONE / f"{ONE}.jpg")
    mask = tmp_path / "masks" / TWO / f"{TWO}.png"
    touch(mask, PNG)
    assert [file.mask for file in find_source(tmp_path / "in", masks=tmp_path / "masks").files] == [
        mask
    ]


def test_a_list_that_spells_a_file_otherwise_is_told_so(tmp_path):
    touch(tmp_path / f"{TWO}.jpg")
    (tmp_path / "list").write_text(f"{ONE}.jpg\n")
    with pytest.raises(DataError, match=r"line 1: .* is no file; give names one form of Unicode"):
        find_source(tmp_path / "list")


def test_classes_of_two_sets_are_the_same_in_either_form():
    require_same_names([ONE, "cat"], [TWO, "cat"], train_place="--train a", test_place="--val b")
