"""Masks of images: found under the images' names, in another folder or beside them."""

import os

import pytest

from milan_pipeline.errors import ConfigError, DataError, MissingDataError
from milan_pipeline.images.sources import find_source

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG if name.lower().endswith("png") else JPEG)


def found(images, masks):
    source = find_source(images, masks=masks)
    return {
        file.name: file.mask and file.mask.relative_to(masks).as_posix() for file in source.files
    }


def test_masks_have_the_paths_of_their_images(tmp_path):
    touch(tmp_path, "in/a.jpg", "in/sub/b.c.jpg", "masks/a.png", "masks/sub/b.c.png")
    assert found(tmp_path / "in", tmp_path / "masks") == {
        "a.jpg": "a.png",
        "sub/b.c.jpg": "sub/b.c.png",
    }


def test_masks_beside_their_images_are_no_images(tmp_path):
    touch(tmp_path, "0.jpg", "0.png", "cat/1.jpeg", "cat/1.PNG")
    expected = {"0.jpg": "0.png", "cat/1.jpeg": "cat/1.PNG"}
    assert found(tmp_path, tmp_path) == expected
    (tmp_path / "link").symlink_to(tmp_path)
    assert found(tmp_path, tmp_path / "link") == expected
    assert [file.key for file in find_source(tmp_path, masks=tmp_path).files] == ["0", "cat/1"]


def test_no_image_is_its_own_mask(tmp_path):
    touch(tmp_path, "0.jpg", "0.png", "1.png")
    with pytest.raises(DataError, match=r"1\.png would be its own mask"):
        find_source(tmp_path, masks=tmp_path)


def test_no_image_of_a_list_is_its_own_mask(tmp_path):
    touch(tmp_path, "0.png", "1.png")
    (tmp_path / "list.txt").write_text("0.png\n1.png\n")
    with pytest.raises(DataError, match=r"0\.png would be its own mask; give one folder of images"):
        find_source(tmp_path / "list.txt", masks=tmp_path)


def test_a_folder_of_masks_among_the_images_holds_no_images(tmp_path):
    touch(tmp_path, "a/0.jpg", "b/1.jpg", "masks/a/0.png", "masks/b/1.png")
    source = find_source(tmp_path, masks=tmp_path / "masks")
    assert [file.name for file in source.files] == ["a/0.jpg", "b/1.jpg"]
    assert source.classes == ["a", "b"]


def test_endings_in_capitals_are_taken(tmp_path):
    touch(tmp_path, "in/0.JPG", "masks/0.PNG")
    assert found(tmp_path / "in", tmp_path / "masks") == {"0.JPG": "0.PNG"}


@pytest.mark.parametrize("other", ["0_mask.png", "0.jpg", "0.tif"])
def test_a_mask_that_is_not_there_is_named_and_so_is_what_lies_near(tmp_path, other):
    touch(tmp_path, "in/0.jpg", f"masks/{other}")
    with pytest.raises(MissingDataError, match=rf"0\.png does not exist \(beside it is {other}\)"):
        find_source(tmp_path / "in", masks=tmp_path / "masks")


def test_the_folder_above_the_images_is_pointed_out(tmp_path):
    touch(tmp_path, "ade/images/0.jpg", "ade/masks/0.png")
    with pytest.raises(MissingDataError, match=r"give the images' own folder, images, in place"):
        find_source(tmp_path / "ade", masks=tmp_path / "ade" / "masks")


def test_a_mask_that_cannot_be_one_is_named(tmp_path):
    touch(tmp_path, "in/0.jpg", "masks/1.png")
    mask = tmp_path / "masks" / "0.png"
    mask.symlink_to("gone.png")
    with pytest.raises(MissingDataError, match=r"0\.png is a link to gone\.png, which does not"):
        find_source(tmp_path / "in", masks=tmp_path / "masks")
    mask.unlink()
    mask.mkdir()
    with pytest.raises(MissingDataError, match=r"0\.png is no regular file"):
        find_source(tmp_path / "in", masks=tmp_path / "masks")
    with pytest.raises(MissingDataError, match=r"nowhere is no folder of masks"):
        find_source(tmp_path / "in", masks=tmp_path / "nowhere")


def test_masks_without_an_image_are_pointed_out(tmp_path, caplog):
    touch(tmp_path, "in/0.jpg", "masks/0.png", "masks/1.png", "masks/notes.txt")
    find_source(tmp_path / "in", masks=tmp_path / "masks")
    assert f"1 mask in {tmp_path}/masks has no image (1.png)" in caplog.text


def test_masks_of_a_list_lie_below_its_folder(tmp_path):
    touch(tmp_path, "in/0.jpg", "masks/0.png", "else/1.jpg")
    (tmp_path / "in" / "list.tsv").write_text(f"{tmp_path}/in/0.jpg\n")
    source = find_source(tmp_path / "in" / "list.tsv", masks=tmp_path / "masks")
    assert [file.mask for file in source.files] == [tmp_path / "masks" / "0.png"]
    for line in ("../else/1.jpg", f"{tmp_path}/else/1.jpg"):
        (tmp_path / "in" / "list.tsv").write_text(line)
        with pytest.raises(ConfigError, match=r"does not lie below .*in, so that its mask"):
            find_source(tmp_path / "in" / "list.tsv", masks=tmp_path / "masks")


def test_the_fingerprint_covers_the_masks(tmp_path):
    touch(tmp_path, "in/0.jpg", "masks/0.png")
    first = find_source(tmp_path / "in", masks=tmp_path / "masks").fingerprint()
    os.utime(tmp_path / "masks" / "0.png", ns=(1, 1))
    assert find_source(tmp_path / "in", masks=tmp_path / "masks").fingerprint() == first
    (tmp_path / "masks" / "0.png").write_bytes(PNG + b"\0")
    assert find_source(tmp_path / "in", masks=tmp_path / "masks").fingerprint() != first
